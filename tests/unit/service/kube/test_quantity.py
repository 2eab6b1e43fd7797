"""Kubernetes' quantities are converted to GiB."""

import pytest

from service.kube.quantity import gib_of


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


@pytest.mark.parametrize("text", ["", "Gi", "1Q", "ten"])
def test_an_invalid_quantity_is_refused(text: str) -> None:
    """It is not read as some number."""
    with pytest.raises(ValueError, match=r"(?i)invalid"):
        gib_of(text)
