"""The two Secrets of tokens in an in-memory Kubernetes, and replicas that watch them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from service.kube.client import path
from service.kube.types import Object
from service.settings import Settings
from service.tokenstore.watched import WatchedTokens
from tests.support.memory_kube import WatchedKube

NAMESPACE = "gameserver-system"
OPERATORS, ISSUED = "api-tokens", "api-issued-tokens"
SECRETS = path("v1", NAMESPACE, "secrets")


def kept(*entries: Mapping[str, Any]) -> WatchedKube:
    """A Kubernetes with these entries as the operator's tokens, and no created ones."""
    kube = WatchedKube()
    kube.create(SECRETS, {"metadata": {"name": OPERATORS}, "data": file_of(*entries)})
    kube.create(SECRETS, {"metadata": {"name": ISSUED}})
    return kube


def replica(kube: WatchedKube) -> WatchedTokens:
    """A replica's tokens, already started."""
    settings = replace(Settings(), pod_namespace=NAMESPACE, tokens_secret=OPERATORS, issued_tokens_secret=ISSUED)
    tokens = WatchedTokens(settings, kube)
    tokens.start()
    return tokens


def file_of(*entries: Mapping[str, Any]) -> dict[str, str]:
    """The data of the operator's Secret."""
    return {"tokens.json": base64.b64encode(json.dumps({"tokens": entries}).encode()).decode()}


def put(kube: WatchedKube, name: str, data: Mapping[str, str | None]) -> None:
    """Merge this into a Secret's data, as an operator does."""
    kube.merge(f"{SECRETS}/{name}", {"data": dict(data)})


def secret(kube: WatchedKube, name: str) -> Object:
    """The current Secret."""
    stored = kube.get(f"{SECRETS}/{name}")
    assert stored is not None
    return stored
