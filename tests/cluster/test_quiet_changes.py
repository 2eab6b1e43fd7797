"""A change that does not concern the pod, in the middle of one that does."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.controller.place import Place, place_of
from tests.cluster.replicas import first_process, frozen
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]


def read(place: Place, kind: str, name: str) -> dict[str, Any]:
    """An object in the place's namespace; {} if there is none."""
    get = ("kubectl", "-n", place.namespace, "get", kind, name, "--ignore-not-found", "-o", "json")
    return dict(json.loads(place.cluster.run(*get) or "{}"))


def uid_of(pod: dict[str, Any]) -> str:
    return str(pod.get("metadata", {}).get("uid", ""))


def test_a_resize_outlives_the_change_that_follows_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """The old game is still at work on its end meanwhile. Once the new one runs, such a change leaves it alone."""
    with place_of(cluster, tmp_path, on_node=False) as place:
        place.call("POST", "/server/1/", {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1})
        place.until_running(1)
        old = place.pod(1)
        with frozen([first_process(old, "teeworlds")]):
            assert place.call("PATCH", "/server/1/", {"ram_gb": 2})["restarting"] is True
            assert place.call("PATCH", "/server/1/", {"idle_stop_minutes": 60})["restarting"] is False
        until(lambda: uid_of(read(place, "pod", "server-1-0")) not in ("", uid_of(old)), 120, place.logged)
        new = place.pod(1)
        assert new["spec"]["containers"][0]["resources"]["limits"]["memory"] == "2Gi"

        def arrived() -> bool:
            status = read(place, "statefulset", "server-1")["status"]
            return bool(status["currentRevision"] == status["updateRevision"])

        until(arrived, 120, place.logged)
        place.call("PATCH", "/server/1/", {"idle_stop_minutes": 90})
        assert read(place, "statefulset", "server-1")["spec"]["updateStrategy"]["rollingUpdate"] == {"partition": 1}
        assert uid_of(place.pod(1)) == uid_of(new)
