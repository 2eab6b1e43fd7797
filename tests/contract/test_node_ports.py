"""Node ports that run out in the middle of a create, on a real cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from service.app import create_app
from service.assembly import build_context
from service.kube.client import Kube, path
from service.settings import Settings
from tests.contract.conftest import Interfaces
from tests.contract.node_ports import all_taken_but
from tests.support import tokens
from tests.support.waiting import until


@pytest.mark.long
@pytest.mark.cluster
def test_a_create_without_node_ports_leaves_nothing(
    real: Interfaces, real_settings: Settings, new_id: Callable[[], int], tmp_path: Path
) -> None:
    """A create that needs two ports when one is left answers 503, leaves nothing behind, and frees the port.

    A kept disk that it should reuse does not change. The same creates succeed once there are ports.
    """
    file = tokens.write(tmp_path / "tokens.json", tokens.entry("t"))
    app = create_app(build_context(replace(real_settings, tokens_file=file), real.cluster, real.releases))
    namespace, kube, client = real_settings.servers_namespace, Kube(), app.test_client()

    def call(method: str, id: int, **body: object) -> tuple[int, str]:
        answer = client.open(
            f"/api/v1/server/{id}/", method=method, json=body or None, headers={"Authorization": "Bearer t"}
        )
        assert answer.json is not None
        return answer.status_code, str(answer.json.get("type", "")).removeprefix("/problems/")

    def left_of(id: int) -> set[str]:
        kinds = {"services": "v1", "secrets": "v1", "persistentvolumeclaims": "v1", "statefulsets": "apps/v1"}
        return {
            kind
            for kind, group in kinds.items()
            for item in kube.all(path(group, namespace, kind))
            if item["metadata"]["name"].split(".v1.")[-1].startswith(f"server-{id}")
        }

    small = {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1, "start": False}
    new, kept = new_id(), new_id()
    assert call("POST", kept, **small) == (201, "")
    real.use_disk(kept)
    assert call("DELETE", kept) == (200, "")
    with all_taken_but(kube, namespace, 1):
        assert call("POST", new, **small) == (503, "no-node-port-left")
        until(lambda: left_of(new) == set())
        assert call("GET", new)[0] == 404
        assert call("POST", kept, **small, disk="reuse") == (503, "no-node-port-left")
        assert left_of(kept) == {"persistentvolumeclaims"}
        claim = real.cluster.server(kept).claim
        assert claim is not None
        assert "deletionTimestamp" not in claim["metadata"]
        one_port = {"metadata": {"name": "one-port"}, "spec": {"type": "NodePort", "ports": [{"port": 1}]}}
        assert kube.create(path("v1", namespace, "services"), one_port)["spec"]["ports"][0]["nodePort"]
    assert call("POST", new, **small) == (201, "")
    assert call("POST", kept, **small, disk="reuse") == (201, "")
