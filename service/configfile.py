"""Files that an operator gives, read strictly: a slip is named with its file and line, and nothing is guessed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from service.errors import StartupError

Keys = Sequence[str | int]


# libyaml, where PyYAML was built with it, takes a tenth of the time.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's, with JSON's way to write a float: 1e-07 is a number to helm too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"-?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]+$"), list("-0123456789")
)
_TEXT = "tag:yaml.org,2002:str"


class _StrictLoader(_Loader):
    """Refuses what YAML would take without a word: a key that is there twice, and one that is no text (`NO: 1`)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            slip = "appears twice" if key.value in seen else "needs quotes" if key.tag != _TEXT else ""
            if slip:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value} {slip}", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def fast_yaml(text: str) -> Any:
    """What a YAML text says, for what is not an operator's slip any more."""
    return yaml.load(text, _Loader)  # noqa: S506 (a safe loader)


def text_of(path: Path) -> str:
    """The file's text; raises StartupError where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{path}:1: cannot be read: {error}") from error


def yaml_of(path: Path, text: str, what: str = "is not YAML") -> Any:
    """What the YAML `text` of the file says; raises StartupError, with `what` is wrong of it."""
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 (a safe loader)
    except yaml.MarkedYAMLError as error:
        # A mark may lie behind the end.
        line = min(error.problem_mark.line, text.count("\n")) + 1 if error.problem_mark else 1
        raise StartupError(f"{path}:{line}: {what}: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise StartupError(f"{path}:1: {what}: {error}") from error


def json_of(source: Path | str, text: str) -> Any:
    """What the JSON `text` says; raises StartupError naming its source. Nothing of the text is in the message."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise StartupError(f"{source}:1: a key appears twice in one object")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise StartupError(f"{source}:{error.lineno}: is not JSON: {error.msg}") from error


def line_of(text: str, keys: Keys) -> int:
    """The line of a YAML text in which the value under `keys` begins, or that of the nearest one above it."""
    node, line = yaml.compose(text, _Loader), 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = [(name, value) for name, value in node.value if name.value == key]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            found = [(value, value) for value in node.value[key : key + 1]]
        else:
            found = []
        if not found:
            break
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line


def broken(path: Path, message: str, *keys: str | int) -> StartupError:
    """An error at the line that the keys lead to, for files whose parser keeps no lines: one key's after another's."""
    lines, at = path.read_text(encoding="utf-8").splitlines(), 0
    for key in keys:
        word = re.compile(rf"\b{re.escape(str(key))}\b")
        at = next(
            (number for number, line in enumerate(lines[at:], at) if isinstance(key, str) and word.search(line)), at
        )
    return StartupError(f"{path}:{at + 1}: {message}")


def dotted(keys: Keys) -> str:
    """`ports[0].name` for ("ports", 0, "name")."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Which of the known names was probably meant."""
    names = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), names, n=1)
    return names[found[0]] if found else None


def unknown(name: str, known: Iterable[str]) -> str:
    """That a name is unknown, and what would be right."""
    names = list(known)
    if meant := nearest(name, names):
        return f"is unknown; did you mean `{meant}`?"
    return f"is unknown; expected one of {', '.join(names)}" if names else "is unknown; nothing is allowed here"


def has(values: Any, keys: Keys) -> bool:
    """Whether there is something under these keys."""
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
