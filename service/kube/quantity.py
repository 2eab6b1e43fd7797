"""Parses Kubernetes' quantities, such as `10Gi`."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from kubernetes.utils.quantity import parse_quantity


def number_of(quantity: str) -> Decimal:
    """A quantity as a number. Raises ValueError if `quantity` is not one."""
    number: Decimal = parse_quantity(quantity)  # type: ignore[no-untyped-call]
    return number


def bytes_of(quantity: str) -> int:
    """A quantity of bytes as a number, rounded up. Raises ValueError if `quantity` is not one.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    return int(number_of(quantity).to_integral_value(rounding=ROUND_CEILING))


def gib_of(quantity: str, *, ignoring: int = 0) -> int:
    """A quantity of bytes in GiB, rounded up, but not for `ignoring` bytes or less. Raises ValueError as `bytes_of`."""
    size = bytes_of(quantity)
    whole = size // 2**30
    rest = size - whole * 2**30
    return whole + 1 if rest > (ignoring if whole else 0) else whole
