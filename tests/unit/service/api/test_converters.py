"""Server ids in paths, and the names of releases made from them."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.api.converters import ServerId
from service.servers.names import LARGEST_ID, release_name

ID = re.compile(ServerId.regex)


@given(st.integers(-10, 2**65))
@example(LARGEST_ID)
@example(LARGEST_ID + 1)
@example(10**18)
@example(10**19)
def test_ids_are_the_numbers_from_1_to_the_largest(number: int) -> None:
    """The expression matches exactly these numbers."""
    assert bool(ID.fullmatch(str(number))) == (1 <= number <= LARGEST_ID)


@pytest.mark.parametrize("text", ["", "01", "١", "1e3", "abc", "1 ", "1\n", "+1", "1.0", "--debug", "９"])
def test_nothing_else_is_an_id(text: str) -> None:
    """This includes texts that `int()` accepts."""
    assert not ID.fullmatch(text)


@pytest.mark.parametrize("id", [0, -1, 2**63, True, "1", "1 --debug", 1.0, None])
def test_only_an_id_becomes_a_release_name(id: object) -> None:
    """helm must never take it for an option."""
    with pytest.raises(ValueError, match="not a server's id"):
        release_name(id)  # type: ignore[arg-type]


def test_ids_become_release_names() -> None:
    """These are the smallest and the largest id."""
    assert (release_name(1), release_name(2**63 - 1)) == ("server-1", "server-9223372036854775807")
