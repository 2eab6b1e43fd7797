"""What images/minetest makes of the customer's minetest.conf, read as Luanti reads it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "images" / "minetest" / "bin" / "luanti-settings"


def parsed(lines: Iterator[bytes], end: bytes = b"") -> dict[bytes, Any]:
    """https://github.com/luanti-org/luanti/blob/5.6.1/src/settings.cpp `parseConfigLines`."""
    found: dict[bytes, Any] = {}
    for line in lines:
        text = line.strip()
        if text and text == end:
            return found
        if text.startswith(b"#") or b"=" not in text:
            continue
        name, value = (part.strip() for part in text.split(b"=", 1))
        if value == b"{":
            found[name] = parsed(lines, b"}")
        elif value == b'"""':
            found[name] = b"\n".join(iter(lambda: next(lines, b'"""'), b'"""'))
        else:
            found[name] = value
    assert end == b"", "Luanti reads nothing of a file with a group that does not end"
    return found


def settings(file: bytes, folder: Path, **environment: str) -> dict[bytes, Any]:
    (folder / "minetest.conf").write_bytes(file)
    path = {"PATH": "/usr/bin:/bin"}
    printed = subprocess.run([SCRIPT], cwd=folder, env=path | environment, check=True, capture_output=True).stdout
    return parsed(iter(printed.split(b"\n")))


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"bind_address = 127.0.0.1",
        b'bind_address = 127.0.0.1\nmotd = """\nWelcome\n',
        b'motd="""\r\nWelcome\r\n"""x\r\n',
        b' motd\t= \t""" \v\n """\n"""\t\n',
        b'motd = """\n"""\nmotd = """\n',
        b'# motd = """\n"""\nmotd = """\n# """\n',
        b'a = {\nb = {\nmotd = """\n}\n}\n',
        b"a = {\n  b = {\n  }\n",
        b"}\na = {\n# }\n} # b\n",
        b'= """\nb = {',
        b'motd = """\0\n"""\0\nx = \0"""\n',
        b'a = b = """\nmotd = """',
    ],
)
def test_no_file_hides_what_overrides_it(file: bytes, tmp_path: Path) -> None:
    """Otherwise only the probe could connect, or an option would have no effect."""
    found = settings(file, tmp_path, MOTD="mine")
    assert (found[b"bind_address"], found[b"server_announce"], found[b"motd"]) == (b"", b"false", b"mine")


@pytest.mark.parametrize("text", ["{", ' {"""', "a\nb = {", '"""', "\r{\n"])
def test_no_option_hides_what_follows_it(text: str, tmp_path: Path) -> None:
    """An option is one line of text, whatever a customer wrote."""
    found = settings(b"", tmp_path, SERVER_NAME=text, SEED="5")
    assert (found[b"bind_address"], found[b"fixed_map_seed"], b"b" in found) == (b"", b"5", False)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_the_customers_settings_stay(newline: bytes, tmp_path: Path) -> None:
    """Texts and groups that end are read as they are, also those of a file from Windows."""
    file = b'# mine\nmotd = """\nHello\n\n  you = {\n"""\nnoise = {\n  seed = 5\n}\npvp = no'
    found = settings(file.replace(b"\n", newline), tmp_path, SERVER_NAME='A """\nb = {')
    expected = {b"motd": b"Hello\n\n  you = {", b"noise": {b"seed": b"5"}, b"pvp": b"no"}
    assert found.items() >= expected.items()
    assert found[b"server_name"] == b"A  b = {"
