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

import json
import re
import traceback
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import jinja2.nodes
import jinja2.sandbox
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend

from service.errors import StartupError
from service.records import Record
from service.yamltext import as_yaml

BUILT_IN = Path(__file__).resolve().parent / "games"
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
FILES = ("game.yaml", "values.yaml.j2", "options.schema.json")
_KEYS = {"name": str, "title": str, "description": str, "eula": str, "ports": list}


# libyaml, where PyYAML was built with it, takes a tenth of the time.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's, with JSON's way to write a float: 1e-07 is a number to helm too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"-?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]+$"), list("-0123456789")
)


def _load(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506 (it is a safe loader)


@dataclass(frozen=True)
class Game:
    """One game; `eula` is None where there is nothing to accept."""

    name: str
    title: str
    description: str
    eula: str | None
    ports: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, Any]
    template: jinja2.Template

    def errors(self, options: Mapping[str, Any]) -> dict[str, list[str]]:
        """What is wrong with a server's options, by field; empty if nothing is."""
        found: dict[str, list[str]] = {}
        for error in _Validator(self.schema).iter_errors(options):
            for field, message in _messages(error):
                found.setdefault(field, []).append(message)
        return found

    def render(
        self, id: int, record: Record, *, new: bool = False, taken_back: Set[str] = frozenset()
    ) -> dict[str, Any]:
        """The chart values that this game makes of a server. Its options must have been found in order.

        `taken_back` names the options that the server had up to now. They, and in a `new` server all that were not
        given, have their schema's default, where it names one.
        """
        server = {
            "id": id,
            "ram_gb": record.ram_gb,
            "disk_gb": record.disk_gb,
            "rcon": record.rcon,
            "customer": record.customer,
        }
        filled = {
            name: schema["default"]
            for name, schema in (self.schema.get("properties") or {}).items()
            if isinstance(schema, Mapping) and "default" in schema and (new or name in taken_back)
        }
        values = _load(self.template.render(server=server, options={**filled, **record.options}, taken_back=taken_back))
        if not isinstance(values, dict):
            raise TypeError("does not render to a mapping")
        return values


def load(*folders: Path) -> Mapping[str, Game]:
    """The games in all the folders by name, a later folder's game replacing an earlier one of the same name.

    Raises StartupError naming the file and line of the first thing that is wrong.
    """
    games: dict[str, Game] = {}
    for folder in folders:
        if not folder.is_dir():
            raise StartupError(f"{folder}: is not a folder of games")
        for name, files in sorted(_found(folder).items()):
            games[name] = _game(name, files)
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
            raise StartupError(f"{entry}:1: is no file of a game; expected <game>.{{{','.join(FILES)}}}")
        games[name] = {file: folder / f"{name}.{file}" for file in FILES}
    return games


def _game(name: str, files: Mapping[str, Path]) -> Game:
    about = _about(name, files["game.yaml"])
    schema = _schema(files["options.schema.json"])
    template = _template(files["values.yaml.j2"])
    game = Game(
        name=name,
        title=about.get("title", name),
        description=about.get("description", ""),
        eula=about.get("eula"),
        ports=(),
        schema=schema,
        template=template,
    )
    values = _tried(game, files["values.yaml.j2"])
    ports = values.get("ports", about.get("ports", []))
    if about.get("ports", ports) != ports:
        raise _broken(files["game.yaml"], "ports are not those of values.yaml.j2", key="ports")
    if "primary" not in [port.get("name") for port in ports if isinstance(port, dict)]:
        raise _broken(files["values.yaml.j2"], "has no port named primary", key="ports")
    return Game(**{**game.__dict__, "ports": tuple(ports)})


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{path}:1: cannot be read: {error}") from error


def _about(name: str, path: Path) -> dict[str, Any]:
    if not NAME.fullmatch(name):
        raise StartupError(f"{path}:1: a game's name must match {NAME.pattern}, and {name!r} does not")
    about = _yaml(path, _read(path))
    for key, value in about.items():
        if key not in _KEYS:
            raise _broken(path, f"unknown key {key!r}; known are {', '.join(_KEYS)}", key=str(key))
        if not isinstance(value, _KEYS[key]):
            raise _broken(path, f"{key} must be a {_KEYS[key].__name__}", key=key)
    for key in ("name", "title", "description"):
        if key not in about:
            raise _broken(path, f"{key} is missing")
    if about["name"] != name:
        raise _broken(path, f"name is {about['name']!r}, but the files are named {name!r}", key="name")
    return about


def _yaml(path: Path, text: str, what: str = "") -> dict[str, Any]:
    try:
        found = _load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise StartupError(f"{path}:{line}: {what}is not YAML: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise StartupError(f"{path}:1: {what}is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise StartupError(f"{path}:1: {what}must be a mapping")
    return found


def _schema(path: Path) -> dict[str, Any]:
    text = _read(path)
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        raise StartupError(f"{path}:{error.lineno}: is not JSON: {error.msg}") from error
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        key = next((str(part) for part in reversed(error.absolute_path) if isinstance(part, str)), "")
        raise _broken(path, f"is no JSON Schema: {error.message} (at {error.json_path})", key=key) from error
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise _broken(path, 'must have "type": "object"', key="type")
    if schema.get("additionalProperties") is not False:
        raise _broken(path, 'must have "additionalProperties": false', key="additionalProperties")
    return schema


def _broken(path: Path, message: str, key: str = "") -> StartupError:
    """An error at the first line of the file that has the key, as neither parser keeps the lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = next((number for number, line in enumerate(lines, 1) if key and re.search(rf"\b{re.escape(key)}\b", line)), 1)
    return StartupError(f"{path}:{at}: {message}")


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


def _template(path: Path) -> jinja2.Template:
    source = _read(path)
    try:
        tree = _ENVIRONMENT.parse(source, filename=str(path))
        for output in tree.find_all(jinja2.nodes.Output):
            for node in output.nodes:
                last = isinstance(node, jinja2.nodes.Filter) and node.name == "tojson"
                if not isinstance(node, jinja2.nodes.TemplateData) and not last:
                    raise StartupError(f"{path}:{node.lineno}: every {{{{ }}}} has to end in `| tojson`")
        code = _ENVIRONMENT.compile(source, filename=str(path))
    except jinja2.TemplateSyntaxError as error:
        raise StartupError(f"{path}:{error.lineno}: {error.message}") from error
    return jinja2.Template.from_code(_ENVIRONMENT, code, _ENVIRONMENT.make_globals(None))


def _tried(game: Game, path: Path) -> dict[str, Any]:
    """What the template renders with no option set, after trying it with each one too, set and taken back."""
    samples = {name: _sample(part) for name, part in (game.schema.get("properties") or {}).items()}
    required = {name: samples[name] for name in game.schema.get("required", []) if name in samples}
    values: dict[str, Any] = {}
    chosen = [samples, *({**required, name: sample} for name, sample in samples.items())]
    tries = [
        *((options, frozenset[str]()) for options in chosen),
        *((required, frozenset({name})) for name in samples.keys() - required.keys()),
        (required, frozenset[str]()),
    ]
    for options, taken_back in tries:
        record = Record(game=game.name, ram_gb=2, disk_gb=10, options=options)
        try:
            values = game.render(1, record, taken_back=taken_back)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise StartupError(f"{path}:{line}: does not render to YAML: {error.problem}") from error
        except Exception as error:
            frames = [
                frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
            ]
            raise StartupError(f"{path}:{frames[-1] if frames else 1}: {error}") from error
    return values


def _sample(schema: Any) -> Any:
    """Some value that fits a schema of the simple kind that options have."""
    if not isinstance(schema, Mapping):
        return "x"
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    least = schema.get("minimum", 1)
    return {"integer": least, "number": least, "boolean": True, "array": [], "object": {}, "null": None}.get(kind, "x")


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
