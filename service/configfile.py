"""Strict parsing of the operator's YAML and JSON files; an error names the file and the line."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from service.errors import StartupError

Keys = Sequence[str | int]
"""A path into nested mappings and lists, such as ("ports", 0, "name")."""


# libyaml's loader takes a tenth of the time, but not every build of PyYAML has it.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's loader, which also reads JSON's floats: 1e-07 is a number for helm too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"-?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]+$"), list("-0123456789")
)
_TEXT = "tag:yaml.org,2002:str"


class _StrictLoader(_Loader):
    """Refuses what YAML silently accepts: a key that appears twice, and a key that is not a string (`NO: 1`)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(problem="a key must be a string", problem_mark=key.start_mark)
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            mistake = "appears twice" if key.value in seen else "needs quotes" if key.tag != _TEXT else ""
            if mistake:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value} {mistake}", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def fast_yaml(text: str) -> Any:
    """Parse YAML without the strict checks, for text that has passed them before."""
    return yaml.load(text, _Loader)  # noqa: S506 (a safe loader)


def text_of(path: Path) -> str:
    """The text of the file; raises StartupError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{path}:1: cannot be read: {error}") from error


def yaml_of(path: Path, text: str, what: str = "is not YAML") -> Any:
    """Parse YAML strictly.

    Args:
        path: The file that `text` comes from, for the message.
        text: The YAML text.
        what: What the message says is wrong.

    Raises:
        StartupError: The text is not valid; the message names the file and line.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 (a safe loader)
    except yaml.MarkedYAMLError as error:
        # The mark may point past the end.
        line = min(error.problem_mark.line, text.count("\n")) + 1 if error.problem_mark else 1
        raise StartupError(f"{path}:{line}: {what}: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise StartupError(f"{path}:1: {what}: {error}") from error


def json_of(source: Path | str, text: str) -> Any:
    """Parse JSON strictly; raises StartupError, which names `source` and does not quote the text."""

    def reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise StartupError(f"{source}:1: a key appears twice in one object")
        return dict(pairs)

    def reject_constant(text: str) -> Any:
        raise StartupError(f"{source}:1: {text} is not a number of JSON")

    def finite(text: str) -> float:
        return number if math.isfinite(number := float(text)) else reject_constant(text)

    try:
        return json.loads(text, object_pairs_hook=reject_duplicates, parse_constant=reject_constant, parse_float=finite)
    except RecursionError as error:
        raise StartupError(f"{source}:1: is not JSON: it nests too deeply") from error
    except json.JSONDecodeError as error:
        raise StartupError(f"{source}:{error.lineno}: is not JSON: {error.msg}") from error


def line_of(text: str, keys: Keys) -> int:
    """The line (from 1) of a YAML text where the value under `keys` begins, or the nearest value above it."""
    node, line = yaml.compose(text, _Loader), 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            entries = [(name, value) for name, value in node.value if name.value == key]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            entries = [(value, value) for value in node.value[key : key + 1]]
        else:
            entries = []
        if not entries:
            break
        line, node = entries[0][0].start_mark.line + 1, entries[0][1]
    return line


def broken(path: Path, message: str, *keys: str | int) -> StartupError:
    """A StartupError at the line that `keys` lead to, for files whose parser does not record lines.

    It finds the first line with each key, one after another.
    """
    lines, index = path.read_text(encoding="utf-8").splitlines(), 0
    for key in keys:
        word = re.compile(rf"(?<!\w){re.escape(str(key))}(?!\w)")
        matches = (number for number, line in enumerate(lines[index:], index) if word.search(line))
        index = next(matches, index) if isinstance(key, str) else index
    return StartupError(f"{path}:{index + 1}: {message}")


def dotted(keys: Keys) -> str:
    """`ports[0].name` for ("ports", 0, "name")."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is most likely a misspelling of, or None."""
    names = {known_name.lower(): known_name for known_name in known}
    matches = difflib.get_close_matches(name.lower(), names, n=1)
    return names[matches[0]] if matches else None


def unknown(name: str, known: Iterable[str]) -> str:
    """A message that a name is unknown, with a suggestion."""
    names = list(known)
    if suggestion := nearest(name, names):
        return f"is unknown; did you mean `{suggestion}`?"
    return f"is unknown; expected one of {', '.join(names)}" if names else "is unknown; nothing is allowed here"


def has(values: Any, keys: Keys) -> bool:
    """Whether `values` has a value under these keys."""
    for key in keys:
        if isinstance(values, Mapping):
            if key not in values:
                return False
            values = values[key]
        elif isinstance(values, list) and isinstance(key, int):
            if key >= len(values):
                return False
            values = values[key]
        else:
            return False
    return True
