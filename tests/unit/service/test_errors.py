"""Problems: each kind by its slug."""

import pytest

from service.errors import PROBLEMS, NotFound, Problem


def test_every_kind_is_known_by_its_slug() -> None:
    """The one for bugs too, which is none of the others."""
    assert PROBLEMS["not-found"] is NotFound
    assert PROBLEMS["internal-error"] is Problem


def test_one_that_is_defined_elsewhere_is_known_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as it is defined, in whatever module."""
    monkeypatch.setitem(PROBLEMS, "of-a-test", Problem)
    del PROBLEMS["of-a-test"]

    class OfATest(Problem):
        slug = "of-a-test"

    assert PROBLEMS["of-a-test"] is OfATest


def test_no_two_kinds_have_one_slug() -> None:
    """A kind that says none would be taken for what it is made from."""
    with pytest.raises(TypeError, match="Nameless needs a slug of its own: not-found is NotFound's"):
        type("Nameless", (NotFound,), {})
