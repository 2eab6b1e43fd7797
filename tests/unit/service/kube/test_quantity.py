"""Kubernetes' quantities are converted to GiB."""

import pytest

from service.kube.quantity import bytes_of, gib_of


@pytest.mark.parametrize(
    ("quantity", "gib"),
    [
        ("10Gi", 10),
        ("2Pi", 2 * 2**20),
        ("1Ei", 2**30),
        ("1E", 931_322_575),
        ("0.5Gi", 1),
        ("500M", 1),
        ("5368709120", 5),
        ("0", 0),
    ],
)
def test_every_suffix_is_understood(quantity: str, gib: int) -> None:
    """Binary and decimal suffixes, and none. The result is rounded up to whole GiB."""
    assert gib_of(quantity) == gib


def test_a_few_bytes_may_be_left_out() -> None:
    """They do not make a disk a GiB larger, but a disk of few bytes has a size, too."""
    assert [gib_of(size, ignoring=2**20) for size in ("10Gi", "10241Mi", "10242Mi", "1Mi")] == [10, 10, 11, 1]


def test_bytes_are_rounded_up() -> None:
    """A quantity may be a fraction."""
    assert [bytes_of(size) for size in ("1Ki", "1500m", "0")] == [1024, 2, 0]


@pytest.mark.parametrize("text", ["", "Gi", "1Q", "ten"])
def test_an_invalid_quantity_is_refused(text: str) -> None:
    """It is not read as some number."""
    with pytest.raises(ValueError, match=r"(?i)invalid"):
        gib_of(text)
