"""What the Kubernetes API speaks of, as types."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
"""An object as the Kubernetes API writes it in JSON."""
