"""Parses Kubernetes' quantities, such as `10Gi`."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from kubernetes.utils.quantity import parse_quantity

_GIB = Decimal(2**30)


def gib_of(quantity: str) -> int:
    """A quantity of bytes in GiB, rounded up. Raises ValueError if `quantity` is not one.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    return int((bytes_of(quantity) / _GIB).to_integral_value(rounding=ROUND_CEILING))


def bytes_of(quantity: str) -> Decimal:
    """A quantity in bytes. Raises ValueError if `quantity` is not one."""
    size: Decimal = parse_quantity(quantity)  # type: ignore[no-untyped-call]
    return size
