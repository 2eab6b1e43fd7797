"""Types for the objects of the Kubernetes API."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
"""An object as the Kubernetes API returns it in JSON."""
