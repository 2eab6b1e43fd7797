"""The catalogue of games, with one folder per game. It is checked as a whole when the service starts.

A folder `<name>/` contains
    game.yaml             name, title, description; eula: the address of a licence that must be accepted; query: how the
                          game says how many players are on it; console and save: how it gets commands, and which of
                          them hold its world still
    values.yaml.j2        Jinja2 → YAML, the values of the gameserver chart; reads `server`, `options` and `taken_back`
    options.schema.json   the JSON Schema of `options`
A folder that is mounted from a ConfigMap cannot contain folders. There, the files are named `<name>.game.yaml`,
`<name>.values.yaml.j2` and `<name>.options.schema.json`.

Every `{{ }}` of a template must end with `| tojson`, so that a customer's text becomes data, in one scalar, whatever it
contains. If a folder breaks a rule, the service does not start, and the message names the file and line.
"""

from __future__ import annotations

import hashlib
import re
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import jinja2.nodes
import jinja2.sandbox
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from service.configfile import broken, dotted, fast_yaml, line_of, nearest, text_of, unknown, yaml_of
from service.console.commands import CHART_VALUES, LONGEST_COMMAND, LONGEST_HOLD, Command, Console, Save
from service.errors import StartupError
from service.games import options as optionschemas
from service.jsonschemas import FORMATS, Validator
from service.players.query import PROTOCOLS, Query
from service.servers.chartvalues import ChartValues
from service.servers.spec import ServerSpec
from service.servers.values import deep_merge
from service.settings import PACKAGE, Settings
from service.yamltext import as_yaml

BUILT_IN = PACKAGE / "games" / "builtin"
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
FILES = ("game.yaml", "values.yaml.j2", "options.schema.json")
_JAVA_NAME = re.compile(r"[A-Za-z0-9_]{1,16}")
_TYPE_NAMES = {str: "a string", list: "a list", dict: "a mapping"}
_KEYS = {
    "name": str,
    "title": str,
    "description": str,
    "eula": str,
    "ports": list,
    "query": dict,
    "console": dict,
    "save": dict,
}
_QUERY_KEYS = ("protocol", "port")
_CONSOLE_KEYS = ("kind", "port")
_SAVE_KEYS = ("hold", "release", "check", "seconds")
_COMMAND_KEYS = ("command", "expect")
_MOST_COMMANDS = 10
_SHORT_TEXT = 200
_SERVER_FIELDS = ("id", "ram_gb", "disk_gb", "rcon", "customer")


@dataclass(frozen=True)
class Game:
    """One game.

    Attributes:
        name: Its name, which is its folder's.
        title, description: Texts for the shop.
        eula: The address of a licence that must be accepted; None if there is none.
        query: How the game says how many players are on it; None if it cannot be asked.
        console: How commands reach it; None if none do.
        save: How its world is held still; None if it cannot be.
        ports: Its ports, as in the chart's value `ports`.
        schema: The JSON Schema of its options.
        template: The template of its values.
        shapes: Samples of the values that it renders, one of each kind. Values that differ only in `environment` are of
            the same kind.
    """

    name: str
    title: str
    description: str
    eula: str | None
    ports: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, Any]
    template: jinja2.Template
    query: Query | None = None
    console: Console | None = None
    save: Save | None = None
    shapes: tuple[Mapping[str, Any], ...] = ()

    def errors(self, options: Mapping[str, Any]) -> dict[str, list[str]]:
        """What is wrong with a server's options: messages by field; empty if nothing is."""
        errors: dict[str, list[str]] = {}
        for error in _Validator(self.schema, format_checker=FORMATS).iter_errors(options):
            for field, message in _messages(error):
                errors.setdefault(field, []).append(message)
        return errors

    def render(
        self, id: int, spec: ServerSpec, *, new: bool = False, taken_back: Set[str] = frozenset()
    ) -> dict[str, Any]:
        """The chart values that this game's template renders for a server, and those that its console needs.

        Args:
            id: The server's id.
            spec: Its spec, whose options `errors` accepts.
            new: Whether the server is new; then all options that it does not set have their schema's default.
            taken_back: The options that the server had until now; these have their schema's default too.
        """
        values = fast_yaml(self.text(id, spec, new=new, taken_back=taken_back))
        if not isinstance(values, dict):
            raise TypeError("does not render to a mapping")
        return self.with_console(values)

    def with_console(self, rendered: Mapping[str, Any]) -> dict[str, Any]:
        """What the template rendered, and what the game's console needs."""
        return deep_merge(self.console.chart_values if self.console else {}, rendered)

    def text(self, id: int, spec: ServerSpec, *, new: bool = False, taken_back: Set[str] = frozenset()) -> str:
        """The same, as the YAML text that the template renders."""
        fields = (id, spec.ram_gb, spec.disk_gb, spec.rcon, spec.customer)
        given = optionschemas.defaults(self.schema) if new or taken_back else {}
        defaults = {name: value for name, value in given.items() if new or name in taken_back}
        return self.template.render(
            server=dict(zip(_SERVER_FIELDS, fields, strict=True)),
            options={**defaults, **spec.options},
            taken_back=taken_back,
        )


def load(*folders: Path, chart: ChartValues | None = None) -> Mapping[str, Game]:
    """Load all games.

    Args:
        folders: The folders of games. A later folder's game replaces an earlier one with the same name.
        chart: The chart whose values the games render; the bundled one by default.

    Returns:
        The games by name.

    Raises:
        StartupError: A game is invalid; the message names the file and line of the first mistake.
    """
    chart = chart or ChartValues(Settings.chart_path)
    games: dict[str, Game] = {}
    for folder in folders:
        if not folder.is_dir():
            raise StartupError(f"{folder}: is not a folder of games")
        for name, files in sorted(_find_games(folder).items()):
            games[name] = _game(name, files, chart)
    if not games:
        raise StartupError(f"no game found in {', '.join(map(str, folders))}")
    return MappingProxyType(dict(sorted(games.items())))


# -- reading -----------------------------------------------------------------------------------------------


def _find_games(folder: Path) -> dict[str, dict[str, Path]]:
    games: dict[str, dict[str, Path]] = {}
    for entry in sorted(folder.iterdir()):
        # A mounted ConfigMap also contains ..data and a folder with a date.
        if entry.name.startswith((".", "__")):
            continue
        if entry.is_dir():
            games[entry.name] = {file: entry / file for file in FILES}
            continue
        name, _, file = entry.name.partition(".")
        if file not in FILES:
            suggestion = nearest(file, FILES)
            hint = f"did you mean {name}.{suggestion}?" if suggestion else f"expected <game>.{{{','.join(FILES)}}}"
            raise StartupError(f"{entry}:1: is not a file of a game; {hint}")
        games[name] = {file: folder / f"{name}.{file}" for file in FILES}
    return games


def _game(name: str, files: Mapping[str, Path], chart: ChartValues) -> Game:
    metadata = _metadata(name, files["game.yaml"])
    schema = optionschemas.read(files["options.schema.json"])
    path = files["values.yaml.j2"]
    game = Game(
        name=name,
        title=metadata.get("title", name),
        description=metadata.get("description", ""),
        eula=metadata.get("eula"),
        ports=(),
        schema=schema,
        template=_template(path, schema),
        console=_console(metadata.get("console"), files["game.yaml"]),
    )
    samples = _render_samples(game, path, chart)
    ports = samples[-1]["ports"]
    if metadata.get("ports", ports) != ports:
        raise broken(files["game.yaml"], "ports differ from those in values.yaml.j2", "ports")
    shapes = {as_yaml({**values, "environment": None}): values for values in samples}
    about = files["game.yaml"]
    if game.console:
        _check_console(game.console, about, samples)
    return replace(
        game,
        ports=tuple(ports),
        query=_query(metadata.get("query"), about, samples),
        save=_save(metadata, about),
        shapes=tuple(shapes.values()),
    )


def _metadata(name: str, path: Path) -> dict[str, Any]:
    if not NAME.fullmatch(name):
        raise StartupError(f"{path}:1: a game's name must match {NAME.pattern}, and {name!r} does not")
    metadata = yaml_of(path, text_of(path))
    if not isinstance(metadata, dict):
        raise StartupError(f"{path}:1: must be a mapping")
    for key, value in metadata.items():
        if key not in _KEYS:
            raise broken(path, f"unknown key {key!r}; known are {', '.join(_KEYS)}", str(key))
        if not isinstance(value, _KEYS[key]):
            raise broken(path, f"{key} must be {_TYPE_NAMES[_KEYS[key]]}", key)
    for key in ("name", "title", "description"):
        if key not in metadata:
            raise broken(path, f"{key} is missing")
    if metadata["name"] != name:
        raise broken(path, f"name is {metadata['name']!r}, but the files are named {name!r}", "name")
    return metadata


def _query(fields: Mapping[str, Any] | None, path: Path, samples: Sequence[Mapping[str, Any]]) -> Query | None:
    """How the game is asked for its players; its port has to be one of the game's, whatever the options are."""
    if fields is None:
        return None
    for key, value in fields.items():
        if key not in _QUERY_KEYS:
            raise broken(path, f"query.{key} {unknown(key, _QUERY_KEYS)}", "query", key)
        if not isinstance(value, str):
            raise broken(path, f"query.{key} must be a string", "query", key)
    if fields.get("protocol", "") not in PROTOCOLS:
        raise broken(path, f"query.protocol must be one of {', '.join(PROTOCOLS)}", "query", "protocol")
    query = Query(**fields)
    for values in samples:
        if missing := missing_port(query, values["ports"]):
            raise broken(path, f"query.port: {missing}", "query")
    return query


def missing_port(query: Query, ports: Sequence[Mapping[str, Any]]) -> str:
    """Says that the port at which a game is asked for its players is not among its ports; "" if it is."""
    transport = PROTOCOLS[query.protocol].transport
    if any(port["name"] == query.port and port["protocol"] in (transport, "both") for port in ports):
        return ""
    return f"the game has no {transport} port named {query.port}"


def _console(fields: Mapping[str, Any] | None, path: Path) -> Console | None:
    """How commands reach the game."""
    if fields is None:
        return None
    for key, value in fields.items():
        if key not in _CONSOLE_KEYS:
            raise broken(path, f"console.{key} {unknown(key, _CONSOLE_KEYS)}", "console", key)
        if not isinstance(value, str):
            raise broken(path, f"console.{key} must be a string", "console", key)
    if fields.get("kind", "") not in CHART_VALUES:
        raise broken(path, f"console.kind must be one of {', '.join(CHART_VALUES)}", "console", "kind")
    if fields["kind"] != "rcon" and "port" in fields:
        raise broken(path, "console.port is for rcon alone", "console", "port")
    return Console(**fields)


def _check_console(console: Console, path: Path, samples: Sequence[Mapping[str, Any]]) -> None:
    """The console has to be on, whatever the options are; its port has to be there, and its password is the chart's."""
    for values in samples:
        on = values.get("stdin") if console.kind == "stdin" else (values.get(console.kind) or {}).get("enabled", True)
        if not on:
            raise broken(path, f"console: values.yaml.j2 turns {console.kind} off", "console")
        names = [port["name"] for port in values["ports"] if port["protocol"] in ("TCP", "both")]
        if console.port not in ("rcon", *names):
            raise broken(path, f"console.port: the game has no TCP port named {console.port}", "console", "port")


def _save(metadata: Mapping[str, Any], path: Path) -> Save | None:
    """How the game's world is held still."""
    fields = metadata.get("save")
    if fields is None:
        return None
    if "console" not in metadata:
        raise _wrong(path, "needs console, by which the commands reach the game", "save")
    for key in fields:
        if key not in _SAVE_KEYS:
            raise _wrong(path, unknown(key, _SAVE_KEYS), "save", key)
    lists = {}
    for key in ("hold", "release"):
        if not isinstance(fields.get(key), list) or not 1 <= len(fields[key]) <= _MOST_COMMANDS:
            raise _wrong(path, f"must be a list of 1 to {_MOST_COMMANDS} commands", "save", key)
        lists[key] = tuple(_command(each, path, "save", key, number) for number, each in enumerate(fields[key]))
    if not lists["hold"][-1].expect:
        last = len(lists["hold"]) - 1
        raise _wrong(path, "needs expect, because the last command says that all is saved", "save", "hold", last)
    check = _command(fields["check"], path, "save", "check") if "check" in fields else None
    if check is not None and not check.expect:
        raise _wrong(path, "needs expect", "save", "check")
    seconds = fields.get("seconds", Save.seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= LONGEST_HOLD:
        raise _wrong(path, f"must be a number from 1 to {LONGEST_HOLD}", "save", "seconds")
    return Save(**lists, check=check, seconds=seconds)


def _command(fields: Any, path: Path, *keys: str | int) -> Command:
    """A command, and what its answer must contain: a text, or a list of texts of which one is enough."""
    if not isinstance(fields, dict):
        raise _wrong(path, "must be a mapping with command and expect", *keys)
    for key in fields:
        if key not in _COMMAND_KEYS:
            raise _wrong(path, unknown(key, _COMMAND_KEYS), *keys, key)
    line = fields.get("command")
    if not _is_line(line, LONGEST_COMMAND):
        raise _wrong(path, f"must be one line of 1 to {LONGEST_COMMAND} bytes", *keys, "command")
    expect = fields.get("expect", [])
    texts = [expect] if isinstance(expect, str) else expect
    if not isinstance(texts, list) or len(texts) > _MOST_COMMANDS or not all(_is_line(t, _SHORT_TEXT) for t in texts):
        raise _wrong(path, f"must be a text of 1 to {_SHORT_TEXT} bytes, or a list of them", *keys, "expect")
    return Command(str(line), tuple(texts))


def _wrong(path: Path, message: str, *keys: str | int) -> StartupError:
    return StartupError(f"{path}:{line_of(text_of(path), keys)}: {dotted(keys)} {message}")


def _is_line(text: Any, most: int) -> bool:
    return isinstance(text, str) and text.isprintable() and bool(text.strip()) and len(text.encode()) <= most


# -- the template ------------------------------------------------------------------------------------------


def _environment() -> jinja2.Environment:
    # Sandboxed, because an operator's folder may come from anywhere. Strict, because a misspelt option must not count
    # as one that is not set.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    environment.filters["tojson"] = as_yaml
    environment.filters["offline_uuid"] = _offline_uuid
    return environment


def _offline_uuid(player: str) -> str:
    """The UUID that a Minecraft server makes of a player's name if it verifies no accounts; capital letters count.

    All that is not a name of the Java edition stays as it is: UUIDs, and Bedrock players, whose UUIDs Floodgate makes.
    https://minecraft.wiki/w/Universally_unique_identifier#Minecraft
    """
    if not _JAVA_NAME.fullmatch(player):
        return player
    digest = hashlib.md5(f"OfflinePlayer:{player}".encode(), usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest, version=3))


_ENVIRONMENT = _environment()


def _template(path: Path, schema: Mapping[str, Any]) -> jinja2.Template:
    source = text_of(path)
    try:
        tree = _ENVIRONMENT.parse(source, filename=str(path))
        for output in tree.find_all(jinja2.nodes.Output):
            for node in output.nodes:
                last = isinstance(node, jinja2.nodes.Filter) and node.name == "tojson"
                if not isinstance(node, jinja2.nodes.TemplateData) and not last:
                    raise StartupError(f"{path}:{node.lineno}: every {{{{ }}}} must end with `| tojson`")
        for line, kind, name, known in _names(tree, schema):
            if name not in known:
                raise StartupError(f"{path}:{line}: {kind} {name} {unknown(name, known)}")
        code = _ENVIRONMENT.compile(source, filename=str(path))
    except jinja2.TemplateSyntaxError as error:
        raise StartupError(f"{path}:{error.lineno}: {error.message}") from error
    return jinja2.Template.from_code(_ENVIRONMENT, code, _ENVIRONMENT.make_globals(None))


def _names(tree: jinja2.nodes.Template, schema: Mapping[str, Any]) -> Iterator[tuple[int, str, str, list[str]]]:
    """Yield each name that the template reads from `options`, `taken_back` and `server`.

    Each comes as its line, "option" or "server", the name, and all known names. A misspelt name in an `in` or
    `is defined` would otherwise count as an option that is never set.
    """
    options = list(schema.get("properties", {}))
    known = {"options": options, "taken_back": options, "server": list(_SERVER_FIELDS)}
    nodes = jinja2.nodes
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Compare, nodes.Call)):
        match node:
            case nodes.Getattr(node=nodes.Name(name=owner), attr=name) if not hasattr(dict, name):
                lookup = owner, name
            case nodes.Getitem(node=nodes.Name(name=owner), arg=nodes.Const(value=str(name))):
                lookup = owner, name
            case nodes.Compare(
                expr=nodes.Const(value=str(name)), ops=[nodes.Operand(op="in" | "notin", expr=nodes.Name(name=owner))]
            ):
                lookup = owner, name
            case nodes.Call(
                node=nodes.Getattr(node=nodes.Name(name=owner), attr="get"), args=[nodes.Const(value=str(name)), *_]
            ):
                lookup = owner, name
            case _:
                continue
        if lookup[0] in known:
            yield node.lineno, "server" if lookup[0] == "server" else "option", lookup[1], known[lookup[0]]


def _render_samples(game: Game, path: Path, chart: ChartValues) -> list[dict[str, Any]]:
    """Render the template with sample options, and check the values.

    It is rendered with all options together, with each option in each of its sample values, with each option taken
    back, for a new server with all defaults, and last with as few options as the schema allows. Options that the schema
    does not allow together are left out.
    """
    option_samples, guessed = optionschemas.samples(game.schema)

    def allowed(*choices: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The first of the choices that the schema allows, except for guesses."""
        return [options for options in choices if not _other_errors(game, options, guessed)][:1]

    first = {name: values[0] for name, values in option_samples.items()}
    required = {name: first[name] for name in game.schema.get("required", [])}
    (fewest,) = allowed(required, first) or [required]
    plain = ServerSpec(game=game.name, ram_gb=2, disk_gb=10, options=fewest)
    several = [
        *allowed(first),
        *(
            options
            for name, values in option_samples.items()
            for value in values
            for options in allowed({**required, name: value}, {**first, name: value})
        ),
    ]
    specs = [
        *(replace(plain, options=options) for options in several),
        replace(plain, ram_gb=1, disk_gb=1, rcon="private", customer="acme"),
        replace(plain, ram_gb=1024, disk_gb=1024),
    ]
    cases: list[tuple[ServerSpec, Set[str]]] = [(spec, frozenset()) for spec in specs]
    cases += [(plain, frozenset({name})) for name in option_samples.keys() - fewest.keys()]
    rendered = [_values(game, spec, path, chart, taken_back=taken_back) for spec, taken_back in cases]
    return [*rendered, _values(game, plain, path, chart, new=True), _values(game, plain, path, chart)]


def _other_errors(game: Game, options: Mapping[str, Any], guessed: Set[str]) -> list[str]:
    """The fields that are wrong, except the values of options that are guesses."""
    guesses = tuple(f"options.{name}." for name in guessed)
    return [field for field in game.errors(options) if not f"{field}.".startswith(guesses)]


def _values(
    game: Game,
    spec: ServerSpec,
    path: Path,
    chart: ChartValues,
    *,
    new: bool = False,
    taken_back: Set[str] = frozenset(),
) -> dict[str, Any]:
    # Only guesses do not fit.
    guessed = ", ".join(game.errors(spec.options))
    hint = f"; what fits {guessed} is not known: add `examples` to the schema" if guessed else ""
    context = f" (with the options {as_yaml(spec.options)}{hint})" if spec.options else ""
    try:
        text = game.text(1, spec, new=new, taken_back=taken_back)
    except Exception as error:
        frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise StartupError(f"{path}:{frames[-1] if frames else 1}: {error}{context}") from error
    values = yaml_of(path, text, "does not render to YAML")
    if not isinstance(values, dict):
        raise StartupError(f"{path}:1: does not render to a mapping{context}")
    values = game.with_console(values)
    ports = values.get("ports", [])
    names = [port.get("name", "primary") for port in ports if isinstance(port, dict)] if isinstance(ports, list) else []
    if "primary" not in names:
        raise broken(path, f"has no port named primary{context}", "ports")
    for mistake in chart.mistakes(values) or chart.clashes(values):
        keys = mistake.paths[0]
        raise broken(path, f"{dotted(keys)} {mistake.message}{context}", *keys)
    return values


# -- the options -------------------------------------------------------------------------------------------


def _whole_number(checker: Any, instance: Any) -> bool:
    return type(instance) is int


_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Validator, type_checker=Validator.TYPE_CHECKER.redefine("integer", _whole_number)
)


def _messages(error: ValidationError) -> list[tuple[str, str]]:
    path = ".".join(["options", *map(str, error.absolute_path)])
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = (error.schema.get("properties") or {}) if isinstance(error.schema, Mapping) else {}
        return [(f"{path}.{name}"[:120], "unknown option") for name in error.instance if name not in known]
    return [(path, error.message[:200])]
