"""Reads a server's disk size from its claim. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.kube.quantity import gib_of


def claim_gb(claim: Mapping[str, Any]) -> int:
    """The size that a claim requests, in GiB, rounded up."""
    return gib_of(str(claim.get("spec", {}).get("resources", {}).get("requests", {}).get("storage", "0")))
