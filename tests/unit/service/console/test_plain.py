"""What a game says does nothing to the terminal of its reader."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.console.plain import plain, shortened
from service.logs.lines import clean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There are 0 players\n\tnobody", "There are 0 players\n\tnobody"),
        ("Größer 😀 §cred", "Größer 😀 §cred"),
        ("\x1b[31mred\x1b[0m \x9b1mbold", "red bold"),
        ("\x1b]0;title\x07a\x1b]52;c;Y29weQ==\x1b\\b\x9d0;x\x9cc", "abc"),
        ("\x1bPq#0\x1b\\a\x1b(Bb\x1bcc", "abc"),
        ("one\r\ntwo\rthree\0\a\b\x7f\x85", "one\ntwothree"),
        ("\x1b", ""),
        ("a\u202eb\u2066c\u2028d\ufeffe\ud800", "abcde"),
        ("\x1b]never ends", "never ends"),
    ],
)
def test_escapes_and_control_characters_go(text: str, expected: str) -> None:
    """Escapes go as a whole, newlines and tabs stay."""
    assert plain(text) == expected


@given(st.text(st.sampled_from("\x1b\x9b\x90\x9d[]()P\\;0m\n\t\x07\x9c a"), max_size=60))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    """Whatever the text is, also if an escape has another one in it."""
    assert all(each in "\n\t" or unicodedata.category(each) != "Cc" for each in plain(text))


def test_nothing_is_left_that_a_log_does_not_show() -> None:
    """Except newlines."""
    letters = [chr(number) for number in range(0x10000) if not 0xD800 <= number < 0xE000]
    assert {each for each in letters if plain(each)} == {each for each in letters if clean(each) == each} | {"\n"}


@pytest.mark.parametrize("part", ["\x1b]", "\x90", "\x1b[0", "\x1b ", "\x9b;"])
def test_hostile_text_costs_no_more_than_other_text(part: str) -> None:
    """Many escapes that never end are read once."""
    plain(part * 100_000)


def test_text_is_shortened_between_characters() -> None:
    """The bytes count, and no character is cut in two."""
    assert shortened("äöü", 6) == ("äöü", False)
    assert shortened("äöü", 5) == ("äö", True)
