"""The catalogue: one folder a game, checked as a whole when the service starts.

A folder `<name>/` has
    game.yaml             name, title, description, and eula: the address of a licence that must be accepted
    values.yaml.j2        Jinja2 → YAML, the values of the gameserver chart; sees `server`, `options` and `taken_back`
    options.schema.json   the JSON Schema of `options`
A folder mounted from a ConfigMap cannot have folders in it: there the files are called `<name>.game.yaml`,
`<name>.values.yaml.j2` and `<name>.options.schema.json`.

Every `{{ }}` of a template has to end in `| tojson`, so that what a customer wrote arrives as data, in one
scalar, whatever it says. A folder that breaks a rule stops the start, with its file and line.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import jinja2.nodes
import jinja2.sandbox
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from service.configfile import broken, dotted, fast_yaml, nearest, text_of, unknown, yaml_of
from service.errors import StartupError
from service.games import options as optionschemas
from service.servers.chartvalues import ChartValues
from service.servers.spec import ServerSpec
from service.settings import PACKAGE, Settings
from service.yamltext import as_yaml

BUILT_IN = PACKAGE / "games" / "builtin"
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
FILES = ("game.yaml", "values.yaml.j2", "options.schema.json")
_KEYS = {"name": str, "title": str, "description": str, "eula": str, "ports": list}
_SERVER = ("id", "ram_gb", "disk_gb", "rcon", "customer")


@dataclass(frozen=True)
class Game:
    """One game; `eula` is None where there is nothing to accept.

    `shapes` are values that it renders, one of each kind: those that differ in the environment alone are one kind.
    """

    name: str
    title: str
    description: str
    eula: str | None
    ports: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, Any]
    template: jinja2.Template
    shapes: tuple[Mapping[str, Any], ...] = ()

    def errors(self, options: Mapping[str, Any]) -> dict[str, list[str]]:
        """What is wrong with a server's options, by field; empty if nothing is."""
        found: dict[str, list[str]] = {}
        for error in _Validator(self.schema).iter_errors(options):
            for field, message in _messages(error):
                found.setdefault(field, []).append(message)
        return found

    def render(
        self, id: int, spec: ServerSpec, *, new: bool = False, taken_back: Set[str] = frozenset()
    ) -> dict[str, Any]:
        """The chart values that this game makes of a server. Its options must have been found in order.

        `taken_back` names the options that the server had up to now. They, and in a `new` server all that were not
        given, have their schema's default, where it names one.
        """
        values = fast_yaml(self.text(id, spec, new=new, taken_back=taken_back))
        if not isinstance(values, dict):
            raise TypeError("does not render to a mapping")
        return values

    def text(self, id: int, spec: ServerSpec, *, new: bool = False, taken_back: Set[str] = frozenset()) -> str:
        """The same as the YAML that the template renders."""
        given = (id, spec.ram_gb, spec.disk_gb, spec.rcon, spec.customer)
        filled = {
            name: schema["default"]
            for name, schema in (self.schema.get("properties") or {}).items()
            if isinstance(schema, Mapping) and "default" in schema and (new or name in taken_back)
        }
        return self.template.render(
            server=dict(zip(_SERVER, given, strict=True)), options={**filled, **spec.options}, taken_back=taken_back
        )


def load(*folders: Path, chart: ChartValues | None = None) -> Mapping[str, Game]:
    """The games in all the folders by name, a later folder's game replacing an earlier one of the same name.

    What they render has to be values of `chart`, the bundled one by default. Raises StartupError naming the file and
    line of the first thing that is wrong.
    """
    chart = chart or ChartValues(Settings.chart_path)
    games: dict[str, Game] = {}
    for folder in folders:
        if not folder.is_dir():
            raise StartupError(f"{folder}: is not a folder of games")
        for name, files in sorted(_found(folder).items()):
            games[name] = _game(name, files, chart)
    if not games:
        raise StartupError(f"no game found in {', '.join(map(str, folders))}")
    return MappingProxyType(dict(sorted(games.items())))


# -- finding and reading -----------------------------------------------------------------------------------


def _found(folder: Path) -> dict[str, dict[str, Path]]:
    games: dict[str, dict[str, Path]] = {}
    for entry in sorted(folder.iterdir()):
        # A ConfigMap's mount has ..data and a dated folder beside the files.
        if entry.name.startswith((".", "__")):
            continue
        if entry.is_dir():
            games[entry.name] = {file: entry / file for file in FILES}
            continue
        name, _, file = entry.name.partition(".")
        if file not in FILES:
            meant = nearest(file, FILES)
            hint = f"did you mean {name}.{meant}?" if meant else f"expected <game>.{{{','.join(FILES)}}}"
            raise StartupError(f"{entry}:1: is no file of a game; {hint}")
        games[name] = {file: folder / f"{name}.{file}" for file in FILES}
    return games


def _game(name: str, files: Mapping[str, Path], chart: ChartValues) -> Game:
    about = _about(name, files["game.yaml"])
    schema = optionschemas.read(files["options.schema.json"])
    path = files["values.yaml.j2"]
    game = Game(
        name=name,
        title=about.get("title", name),
        description=about.get("description", ""),
        eula=about.get("eula"),
        ports=(),
        schema=schema,
        template=_template(path, schema),
    )
    tried = _tried(game, path, chart)
    ports = tried[-1]["ports"]
    if about.get("ports", ports) != ports:
        raise broken(files["game.yaml"], "ports are not those of values.yaml.j2", "ports")
    shapes = {as_yaml({**values, "environment": None}): values for values in tried}
    return replace(game, ports=tuple(ports), shapes=tuple(shapes.values()))


def _about(name: str, path: Path) -> dict[str, Any]:
    if not NAME.fullmatch(name):
        raise StartupError(f"{path}:1: a game's name must match {NAME.pattern}, and {name!r} does not")
    about = yaml_of(path, text_of(path))
    if not isinstance(about, dict):
        raise StartupError(f"{path}:1: must be a mapping")
    for key, value in about.items():
        if key not in _KEYS:
            raise broken(path, f"unknown key {key!r}; known are {', '.join(_KEYS)}", str(key))
        if not isinstance(value, _KEYS[key]):
            raise broken(path, f"{key} must be a {_KEYS[key].__name__}", key)
    for key in ("name", "title", "description"):
        if key not in about:
            raise broken(path, f"{key} is missing")
    if about["name"] != name:
        raise broken(path, f"name is {about['name']!r}, but the files are named {name!r}", "name")
    return about


# -- the template ------------------------------------------------------------------------------------------


def _environment() -> jinja2.Environment:
    # A sandbox, as the folder of an operator may come from anywhere; strict, as a misspelt option must not
    # pass for one that is not set.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    environment.filters["tojson"] = as_yaml
    return environment


_ENVIRONMENT = _environment()


def _template(path: Path, schema: Mapping[str, Any]) -> jinja2.Template:
    source = text_of(path)
    try:
        tree = _ENVIRONMENT.parse(source, filename=str(path))
        for output in tree.find_all(jinja2.nodes.Output):
            for node in output.nodes:
                last = isinstance(node, jinja2.nodes.Filter) and node.name == "tojson"
                if not isinstance(node, jinja2.nodes.TemplateData) and not last:
                    raise StartupError(f"{path}:{node.lineno}: every {{{{ }}}} has to end in `| tojson`")
        for line, what, name, known in _names(tree, schema):
            if name not in known:
                raise StartupError(f"{path}:{line}: {what} {name} {unknown(name, known)}")
        code = _ENVIRONMENT.compile(source, filename=str(path))
    except jinja2.TemplateSyntaxError as error:
        raise StartupError(f"{path}:{error.lineno}: {error.message}") from error
    return jinja2.Template.from_code(_ENVIRONMENT, code, _ENVIRONMENT.make_globals(None))


def _names(tree: jinja2.nodes.Template, schema: Mapping[str, Any]) -> Iterator[tuple[int, str, str, list[str]]]:
    """Each name that the template looks up in `options`, `taken_back` and `server`: line, which, name, those there are.

    One that is asked for with `in` or `is defined` would otherwise be taken for an option that is never set.
    """
    options = list(schema.get("properties", {}))
    known = {"options": options, "taken_back": options, "server": list(_SERVER)}
    nodes = jinja2.nodes
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Compare, nodes.Call)):
        match node:
            case nodes.Getattr(node=nodes.Name(name=of), attr=name) if not hasattr(dict, name):
                found = of, name
            case nodes.Getitem(node=nodes.Name(name=of), arg=nodes.Const(value=str(name))):
                found = of, name
            case nodes.Compare(
                expr=nodes.Const(value=str(name)), ops=[nodes.Operand(op="in" | "notin", expr=nodes.Name(name=of))]
            ):
                found = of, name
            case nodes.Call(
                node=nodes.Getattr(node=nodes.Name(name=of), attr="get"), args=[nodes.Const(value=str(name)), *_]
            ):
                found = of, name
            case _:
                continue
        if found[0] in known:
            yield node.lineno, "server" if found[0] == "server" else "option", found[1], known[found[0]]


def _tried(game: Game, path: Path, chart: ChartValues) -> list[dict[str, Any]]:
    """What the template renders: with all options, with each one in all its kinds of values, and last with none.

    Each is taken back once too, and a new server has the options that have a default.
    """
    samples = optionschemas.samples(game.schema)
    first = {name: values[0] for name, values in samples.items()}
    required = {name: first[name] for name in game.schema.get("required", [])}
    plain = ServerSpec(game=game.name, ram_gb=2, disk_gb=10, options=required)
    specs = [
        replace(plain, options=first),
        *(replace(plain, options={**required, name: value}) for name, values in samples.items() for value in values),
        replace(plain, ram_gb=1, disk_gb=1, rcon="private", customer="acme"),
        replace(plain, ram_gb=1024, disk_gb=1024),
    ]
    tries: list[tuple[ServerSpec, Set[str]]] = [(spec, frozenset()) for spec in specs]
    tries += [(plain, frozenset({name})) for name in samples.keys() - required.keys()]
    found = [_values(game, spec, path, chart, taken_back=taken_back) for spec, taken_back in tries]
    return [*found, _values(game, plain, path, chart, new=True), _values(game, plain, path, chart)]


def _values(
    game: Game,
    spec: ServerSpec,
    path: Path,
    chart: ChartValues,
    *,
    new: bool = False,
    taken_back: Set[str] = frozenset(),
) -> dict[str, Any]:
    having = f" (with the options {as_yaml(spec.options)})" if spec.options else ""
    try:
        text = game.text(1, spec, new=new, taken_back=taken_back)
    except Exception as error:
        frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise StartupError(f"{path}:{frames[-1] if frames else 1}: {error}{having}") from error
    values = yaml_of(path, text, "does not render to YAML")
    if not isinstance(values, dict):
        raise StartupError(f"{path}:1: does not render to a mapping{having}")
    ports = values.get("ports", [])
    names = [port.get("name", "primary") for port in ports if isinstance(port, dict)] if isinstance(ports, list) else []
    if "primary" not in names:
        raise broken(path, f"has no port named primary{having}", "ports")
    for mistake in chart.mistakes(values) or chart.clashes(values):
        keys = mistake.paths[0]
        raise broken(path, f"{dotted(keys)} {mistake.message}{having}", *keys)
    return values


# -- the options -------------------------------------------------------------------------------------------


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Any:
    # Python's `$` also matches before a last newline; JSON Schema's (ECMA 262) does not.
    exact = re.sub(r"(?<!\\)\$$", r"\\Z", pattern)
    if isinstance(instance, str) and not re.search(exact, instance):
        yield ValidationError(f"does not match {pattern}")


def _whole_number(checker: Any, instance: Any) -> bool:
    return type(instance) is int


_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"pattern": _pattern},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _whole_number),
)


def _messages(error: ValidationError) -> list[tuple[str, str]]:
    path = ".".join(["options", *map(str, error.absolute_path)])
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = (error.schema.get("properties") or {}) if isinstance(error.schema, Mapping) else {}
        return [(f"{path}.{name}"[:120], "unknown option") for name in error.instance if name not in known]
    return [(path, error.message[:200])]
