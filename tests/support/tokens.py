"""Tokens of the API, in the form of the operator's file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def entry(name: str, secret: str = "", **more: Any) -> dict[str, Any]:
    """A token with all scopes by default. Its secret is its name by default."""
    digest = hashlib.sha256((secret or name).encode()).hexdigest()
    return {"name": name, "sha256": digest, "scopes": ["read", "operate", "admin"], **more}


def write(file: Path, *entries: Mapping[str, Any]) -> Path:
    """Write these tokens to a file, and return its path."""
    file.write_text(json.dumps({"tokens": entries}))
    return file
