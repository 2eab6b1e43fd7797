"""What the pods of our own Jobs have in common: they pass the Pod Security Standard "restricted". Pure.

https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from service.kube.types import Object


def restricted_pod(
    security: Mapping[str, Any], pull_secrets: Iterable[Mapping[str, str]], names: Iterable[str]
) -> Object:
    """Fields of the `spec` of a pod that runs once and gets nothing from Kubernetes.

    Args:
        security: Its securityContext: whose files it reads and writes.
        pull_secrets: The references to the game's Secrets for pulling images.
        names: The names of further ones.
    """
    secrets = [*pull_secrets, *({"name": name} for name in names)]
    return {
        **({"imagePullSecrets": secrets} if secrets else {}),
        "securityContext": {**security, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
    }


def restricted_container() -> Object:
    """The securityContext of its container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
