"""A whole cluster is lost, and comes back from the store and the recovery key, as docs/operations.md says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.backups.records import Backup
from service.operations.operation import Server
from tests.charts.rendering import render
from tests.cluster.conftest import Cluster
from tests.cluster.controller.worlds import Worlds, give, image, on_a_node, store_on_node, worlds_of
from tests.docs.snippets import block
from tests.support import tokens
from tests.support.gunicorn import free_ports
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]


@contextmanager
def reached_by_pods(worlds: Worlds, folder: Path) -> Iterator[str]:
    """An address of the place's API that pods reach; its own is this machine's loopback."""
    address, within = on_a_node()
    (port,) = free_ports(1)
    socket = folder / "api.sock"
    pipes = [
        ["socat", f"UNIX-LISTEN:{socket},fork,unlink-early", f"TCP:127.0.0.1:{worlds.place.api.port}"],
        [*within, "socat", f"TCP-LISTEN:{port},bind={address},fork,reuseaddr", f"UNIX-CONNECT:{socket}"],
    ]
    running = [subprocess.Popen(pipe) for pipe in pipes]
    try:
        yield f"http://{address}:{port}"
    finally:
        for process in running:
            process.kill()
            process.wait()


def recovered(worlds: Worlds, api: str) -> str:
    """Run the chart's Job in the backups' namespace; its pod's answer."""
    assert worlds.store is not None
    jobs, cluster = worlds.place.environment["BACKUP_NAMESPACE"], worlds.place.cluster
    s3 = {"endpoint": worlds.store.endpoint, "bucket": "worlds"}
    values = {
        "tokens": {"existingSecret": "unused"},
        "serversNamespace": worlds.place.namespace,
        "backups": {
            "image": dict(zip(("repository", "tag"), image(cluster).rsplit(":", 1), strict=True)),
            "store": {"kind": "s3", "existingSecret": "store", "s3": s3},
            "recoveryKey": {"existingSecret": "recovery"},
        },
    }
    manifests = render("api", values)
    request = json.loads(manifests["ConfigMap/api-recovery"]["data"]["request.json"])
    # There is no Service for the place's API.
    manifests["ConfigMap/api-recovery"]["data"]["request.json"] = json.dumps({**request, "api": api})
    for name in ("ConfigMap/api-recovery", "CronJob/api-recovery"):
        cluster.run("kubectl", "apply", "-f", "-", stdin=json.dumps(manifests[name]))
    command = block("docs/operations.md", "kubectl -n gameservers-backups create job").splitlines()[0]
    cluster.run(*command.replace("gameservers-backups", jobs).split())
    kubectl = ("kubectl", "-n", jobs)

    def ended() -> bool:
        status: dict[str, Any] = json.loads(cluster.run(*kubectl, "get", "job", "recovery", "-o", "json"))["status"]
        return bool(status.get("succeeded") or status.get("failed"))

    until(ended, 120, lambda: cluster.run(*kubectl, "get", "pods,events"))
    return cluster.run(*kubectl, "logs", "job/recovery").splitlines()[-1]


def backed_up(worlds: Worlds, server: Server) -> Backup:
    """A new backup of the server."""
    ended = worlds.ended(worlds.accept(server))
    assert ended.state == "done", f"{ended} {worlds.place.logged()}"
    return worlds.backup(ended)


@pytest.mark.long
def test_every_server_comes_back_with_its_settings(shared_cluster: Cluster, tmp_path: Path) -> None:
    """An empty namespace gets the server back: with its uid, customer, settings, world and backups, and it runs."""
    lost, new = tmp_path / "lost", tmp_path / "new"
    lost.mkdir()
    new.mkdir()
    with store_on_node(tmp_path / "s3") as store:
        with worlds_of(shared_cluster, lost, store=store) as worlds, worlds.place.controller("one"):
            server = worlds.create(1, customer="acme")
            worlds.kubectl("exec", "server-1-0", "--", "sh", "-c", "echo mine > /data/mark")
            worlds.place.call("PATCH", "/server/1/", {"idle_stop_minutes": 30})
            made = backed_up(worlds, server)
        # Nothing but the store and the recovery key is left.
        with worlds_of(shared_cluster, new, store=store) as worlds, worlds.place.controller("two"):
            entries = tokens.entry("test"), tokens.entry("recovery", scopes=["recover"])
            tokens.write(new / "tokens.json", *entries)
            give(shared_cluster, worlds.place.environment["BACKUP_NAMESPACE"], "recovery-token", token="recovery")
            with reached_by_pods(worlds, tmp_path) as api:
                answer = json.loads(recovered(worlds, api))
            assert answer == {"ok": True, "created": 1, "there": 0, "without_backup": 0, "older": 0}
            worlds.place.until_running(1, seconds=180)
            assert worlds.server(1) == server
            spec = json.loads(worlds.get("statefulset", "server-1")["metadata"]["annotations"]["gameserver/server"])
            assert (spec["customer"], spec["idle_stop_minutes"]) == ("acme", 30)
            assert worlds.kubectl("exec", "server-1-0", "--", "cat", "/data/mark") == "mine\n"
            (kept,) = worlds.kept(server).backups
            assert (kept.id, kept.snapshot, kept.where) == (made.id, made.snapshot, "store")
