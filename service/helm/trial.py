"""Asks Kubernetes whether it would take all objects of a release, before a process of helm writes the first of them.

After an object that is refused, helm goes on with the others. helm-daemon/trial.go does the same as this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.helm.revisions import objects_of
from service.kube.client import Kube, path
from service.servers.objects import KINDS

_MANAGER = "helm"


class Trial:
    """What Kubernetes would say of a release's objects in this namespace."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    def __call__(self, release: Mapping[str, Any], force_conflicts: bool) -> str:
        """Why Kubernetes would not take all objects, in its words; "" if it would, or if the release is new.

        Args:
            release: What `helm upgrade --dry-run=server --output json` prints. It contains secrets.
            force_conflicts: Whether helm is to take back the fields that another manager has taken over.
        """
        if release["info"]["status"] != "pending-upgrade" or release.get("apply_method") != "ssa":
            return ""
        objects = objects_of(release["manifest"])
        # What is being deleted would be gone soon, whatever is written to it: no game starts without it. A claim has
        # rules of its own, which the operations know.
        starts = any(part["kind"] == "StatefulSet" and part["spec"]["replicas"] != 0 for part in objects)
        bodies = {
            path(KINDS[part["kind"]][0], self._namespace, KINDS[part["kind"]][1], part["metadata"]["name"]): part
            for part in objects
        }
        answers = self._kube.would_apply(bodies, manager=_MANAGER, force=force_conflicts)
        refusals: list[str] = []
        for body, (taken, message) in zip(bodies.values(), answers, strict=True):
            kind = body["kind"]
            if taken is None:
                refusals.append(f"{kind} {body['metadata']['name']}: {message}")
            elif starts and kind != "PersistentVolumeClaim" and taken["metadata"].get("deletionTimestamp"):
                refusals.append(f"{kind} {body['metadata']['name']}: object is being deleted")
        return " && ".join(refusals)
