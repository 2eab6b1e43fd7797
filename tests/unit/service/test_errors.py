"""Every kind of problem has a slug of its own."""

import pytest

from service.errors import PROBLEMS, NotFound, Problem


def test_every_kind_is_known_by_its_slug() -> None:
    """This includes the kind for bugs."""
    assert PROBLEMS["not-found"] is NotFound
    assert PROBLEMS["internal-error"] is Problem


def test_a_kind_from_another_module_is_known_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defining the class is enough."""
    monkeypatch.setitem(PROBLEMS, "of-a-test", Problem)
    del PROBLEMS["of-a-test"]

    class OfATest(Problem):
        slug = "of-a-test"

    assert PROBLEMS["of-a-test"] is OfATest


def test_no_two_kinds_share_a_slug() -> None:
    """A kind without its own slug would look like its base class."""
    with pytest.raises(TypeError, match="Nameless needs a slug of its own: not-found is NotFound's"):
        type("Nameless", (NotFound,), {})
