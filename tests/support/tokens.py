"""Tokens of the API, as the operator's file has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def entry(name: str, secret: str = "", **more: Any) -> dict[str, Any]:
    """One that may do everything unless told otherwise; its secret is its name unless it has another."""
    digest = hashlib.sha256((secret or name).encode()).hexdigest()
    return {"name": name, "sha256": digest, "scopes": ["read", "operate", "admin"], **more}


def write(file: Path, *entries: Mapping[str, Any]) -> Path:
    """Write a file of these tokens."""
    file.write_text(json.dumps({"tokens": entries}))
    return file
