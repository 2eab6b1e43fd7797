"""Whether Kubernetes would take all objects of a release is asked before helm writes the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from service.helm.trial import Trial
from service.kube.types import Object
from tests.support.memory_kube import MemoryKube

MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: server-1}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: server-1}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: server-1}
spec: {replicas: 1}
"""
ENDS = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
TAKEN: dict[str, Any] = {"metadata": {}}


class Kube(MemoryKube):
    """Answers as told, for Service, claim and StatefulSet."""

    def __init__(self, *answers: tuple[Object | None, str]) -> None:
        super().__init__()
        self.answers = answers

    def would_apply(
        self, bodies: Mapping[str, Object], *, manager: str, force: bool
    ) -> list[tuple[Object | None, str]]:
        self.asked += [*bodies, f"{manager} {force}"]
        return list(self.answers)


def release(**changes: Any) -> dict[str, Any]:
    """What helm prints of a dry run."""
    return {"info": {"status": "pending-upgrade"}, "apply_method": "ssa", "manifest": MANIFEST, **changes}


@pytest.mark.parametrize(
    ("answers", "manifest", "refusals"),
    [
        ([(TAKEN, "")] * 3, MANIFEST, ""),
        (
            [(None, "no"), (TAKEN, ""), (None, "never")],
            MANIFEST,
            "Service server-1: no && StatefulSet server-1: never",
        ),
        ([(ENDS, ""), (ENDS, ""), (TAKEN, "")], MANIFEST, "Service server-1: object is being deleted"),
        ([(ENDS, ""), (ENDS, ""), (TAKEN, "")], MANIFEST.replace("replicas: 1", "replicas: 0"), ""),
    ],
    ids=["taken", "refused", "being deleted", "being deleted, of a stopped server"],
)
def test_why_kubernetes_would_refuse_a_part_is_said(answers: Any, manifest: str, refusals: str) -> None:
    """In the manifest's order. A claim that is being deleted is there as long as a game uses it."""
    kube = Kube(*answers)
    assert Trial(kube, "games")(release(manifest=manifest), True) == refusals
    assert kube.asked == [
        "/api/v1/namespaces/games/services/server-1",
        "/api/v1/namespaces/games/persistentvolumeclaims/server-1",
        "/apis/apps/v1/namespaces/games/statefulsets/server-1",
        "helm True",
    ]


@pytest.mark.parametrize("changes", [{"info": {"status": "pending-install"}}, {"apply_method": "csa"}])
def test_only_what_is_applied_by_the_server_over_something_is_tried(changes: dict[str, Any]) -> None:
    """Of a new server nothing is there that a half-done write could harm."""
    kube = Kube()
    assert Trial(kube, "games")(release(**changes), False) == ""
    assert kube.asked == []
