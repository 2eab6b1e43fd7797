"""JSON that YAML reads as the same."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service.yamltext import as_yaml

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=10,
)


@given(TREES)
def test_yaml_reads_what_was_meant(value: object) -> None:
    """Whatever the text: emoji, quotes, control characters, backslashes before what looks like an escape."""
    assert yaml.safe_load(as_yaml(value)) == value


@pytest.mark.parametrize(("text", "written"), [("😀", r'"\U0001f600"'), ("é", r'"\u00e9"'), ("\x85", r'"\u0085"')])
def test_what_is_beyond_ascii_is_escaped_whole(text: str, written: str) -> None:
    """An emoji is one escape, not a pair of surrogates, which helm refuses."""
    assert as_yaml(text) == written


def test_a_name_may_be_of_any_length() -> None:
    """YAML looks for the colon after a name within 1,024 characters, unless it is told that there is one."""
    for name in ("n" * 5000, "😀" * 200, '": ' * 400, "{" + '"' * 1100):
        value = {"a": {name: [name, {name: 1}]}, name: {}}
        assert yaml.safe_load(as_yaml(value)) == value


def test_what_json_cannot_say_is_refused() -> None:
    """NaN has no place in values."""
    with pytest.raises(ValueError, match="JSON"):
        as_yaml(float("nan"))
