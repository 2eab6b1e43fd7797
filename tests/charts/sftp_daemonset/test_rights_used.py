"""The chart gives the agent exactly the rights that it uses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from disk_agent.agent import Agent
from disk_agent.kube import ApiError
from disk_agent.lastlines import keeper
from disk_agent.settings import Settings
from disk_agent.sshd.hostkey import KEY, publish
from tests.charts.rendering import render
from tests.support.waiting import until
from tests.unit.agent.lastlines.nodelogs import POD, PodFolder, piece

NODE, SERVERS, ACCOUNTS = "node1", "gameservers", "gameserver-sftp"
CLAIM, SERVICE = "server-7", "server-7-sftp"
Right = tuple[str, str, str]
"""Namespace ("" for the whole cluster), resource, verb."""


class FakeKube:
    """One server whose port does not lead here yet, and an EndpointSlice of another that must be deleted.

    It has last lines of an earlier run, and there are those of a server without a disk.
    """

    def __init__(self) -> None:
        self.used: set[Right] = set()
        self.written = False

    def request(self, method: str, path: str, body: Any = None, content_type: str = "", accept: str = "") -> Any:
        read = "get" if path.split("?")[0].endswith((f"/{NODE}", "/server-7-0", "/server-7")) else "list"
        patch = ["patch", "create"] if "apply" in content_type else ["patch"]
        verbs = {"GET": [read], "DELETE": ["delete"], "PATCH": patch, "POST": ["create"]}[method]
        resource = self._use(path, verbs)
        if resource in ("pods", "statefulsets"):
            return self._owned()
        if method == "POST":
            # Another agent was faster.
            self.written = True
            raise ApiError(409, "exists")
        if "fieldSelector=metadata.name%3Dlog-" in path and not self.written:
            return {"items": []}
        metadata = {"resourceVersion": "1", "uid": "uid"}
        return {"metadata": metadata, "items": self._items(resource) if read == "list" and method == "GET" else []}

    def stream(self, path: str, seconds: int) -> Iterator[dict[str, Any]]:
        self._use(path, ["watch"])
        threading.Event().wait()
        yield {}

    def _use(self, path: str, verbs: list[str]) -> str:
        # A server-side apply is a patch, and a create where there is nothing yet:
        # https://kubernetes.io/docs/reference/using-api/server-side-apply/#authorization-and-permissions
        parts = urlsplit(path).path.split("/")
        parts = parts[3:] if parts[1] == "api" else parts[4:]
        namespace, resource = (parts[1], parts[2]) if parts[0] == "namespaces" else ("", parts[0])
        self.used |= {(namespace, resource, verb) for verb in verbs}
        return resource

    @staticmethod
    def _owned() -> dict[str, Any]:
        """A pod, and the StatefulSet that has made it."""
        metadata = {
            "uid": POD.format(1),
            "creationTimestamp": "2026-11-27T12:00:00Z",
            "ownerReferences": [{"kind": "StatefulSet", "uid": POD.format(1)}],
            "annotations": {"gameserver/server": '{"uid":"7-7"}'},
        }
        return {"metadata": metadata}

    @staticmethod
    def _items(resource: str) -> list[dict[str, Any]]:
        def named(name: str) -> dict[str, Any]:
            return {"name": name, "uid": name, "resourceVersion": "1", "labels": {"gameserver/id": "7"}}

        term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}
        objects: dict[str, dict[str, Any]] = {
            "persistentvolumes": {
                "metadata": named("volume"),
                "spec": {
                    "hostPath": {"path": "/disks/7"},
                    "claimRef": {"namespace": SERVERS, "name": CLAIM},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
                },
            },
            "persistentvolumeclaims": {
                "metadata": {**named(CLAIM), "annotations": {"gameserver/server": '{"uid":"7-7"}'}},
                "spec": {"volumeName": "volume"},
                "status": {"phase": "Bound"},
            },
            "services": {"metadata": named(SERVICE)},
            "secrets": {"metadata": named("log-8")},
            "endpointslices": {
                "metadata": named("server-8-sftp"),
                "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": NODE}],
            },
        }
        return [objects[resource]] if resource in objects else []


def test_what_is_granted_is_what_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, Any] = {name: str(tmp_path / name) for name in ("chroots", "extrausers", "state", "host_root")}
    for folder in (*state.values(), f"{state['state']}/keys", f"{state['state']}/applied"):
        Path(folder).mkdir()
    settings = Settings(
        node=NODE,
        pod="sftp",
        pod_uid="uid",
        pod_ip="10.0.0.1",
        namespace=ACCOUNTS,
        servers_namespace=SERVERS,
        volume_folders=("/disks",),
        uid=1000,
        gid=1000,
        pod_logs=str(tmp_path / "pods"),
        **state,
    )
    pod = PodFolder(tmp_path / "pods")
    pod.write(piece(b"one"))
    monkeypatch.setattr(keeper, "SWEEP_SECONDS", 0.1)
    kube = FakeKube()
    agent = Agent(kube, settings, tmp_path / "log")  # type: ignore[arg-type]
    threading.Thread(target=agent.run, daemon=True).start()
    until(lambda: (SERVERS, "statefulsets", "get") in kube.used, 10)
    pod.remove()
    wanted, deadline = granted("sftp"), time.monotonic() + 10
    while kube.used != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert kube.used == wanted


class Objects:
    """A namespace's Secrets and ConfigMaps, and the rights that requests for them used."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.used: set[Right] = set()

    def request(self, method: str, path: str, body: Any = None, content_type: str = "") -> Any:
        verb = {"GET": "get", "POST": "create", "PUT": "update"}[method]
        self.used.add((ACCOUNTS, path.split("/")[5], verb))
        if method == "GET" and path not in self.objects:
            raise ApiError(404, "not found")
        if method != "GET":
            self.objects[f"{path}/{body['metadata']['name']}" if method == "POST" else path] = body
        return self.objects.get(path)


def test_what_the_host_keys_job_may_is_what_it_does() -> None:
    """At a first install, and after an install by the first charts with one key, whose Secret is updated."""
    kube, secret = Objects(), f"/api/v1/namespaces/{ACCOUNTS}/secrets/sftp-host-key"
    publish(kube, ACCOUNTS, "sftp-host-key")  # type: ignore[arg-type]
    kube.objects[secret]["data"] = {KEY: kube.objects[secret]["data"][KEY]}
    publish(kube, ACCOUNTS, "sftp-host-key")  # type: ignore[arg-type]
    assert kube.used == granted("sftp-host-key")


def granted(account: str) -> set[Right]:
    """The rights of the roles that the chart binds to a service account."""
    manifests = render("sftp-daemonset")
    rights = set()
    for binding in manifests.values():
        if binding["kind"].endswith("RoleBinding") and binding["subjects"][0]["name"] == account:
            role = manifests[f"{binding['roleRef']['kind']}/{binding['roleRef']['name']}"]
            rights |= {
                (role["metadata"].get("namespace", ""), resource, verb)
                for rule in role["rules"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return rights
