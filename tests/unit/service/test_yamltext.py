"""JSON that every YAML parser reads as the same value."""

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
def test_yaml_reads_the_same_value(value: object) -> None:
    """This holds for emoji, quotes, control characters and backslashes before what looks like an escape."""
    assert yaml.safe_load(as_yaml(value)) == value


@pytest.mark.parametrize(("text", "written"), [("😀", r'"\U0001f600"'), ("é", r'"\u00e9"'), ("\x85", r'"\u0085"')])
def test_characters_beyond_ascii_are_escaped(text: str, written: str) -> None:
    """An emoji is one escape, because helm refuses a pair of surrogates."""
    assert as_yaml(text) == written


def test_a_key_may_have_any_length() -> None:
    """YAML expects the colon within 1,024 characters, unless the key is marked with `?`."""
    for name in ("n" * 5000, "😀" * 200, '": ' * 400, "{" + '"' * 1100):
        value = {"a": {name: [name, {name: 1}]}, name: {}}
        assert yaml.safe_load(as_yaml(value)) == value


def test_a_value_that_json_cannot_represent_is_refused() -> None:
    """Such a value is NaN."""
    with pytest.raises(ValueError, match="JSON"):
        as_yaml(float("nan"))
