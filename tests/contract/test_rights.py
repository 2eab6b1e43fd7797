"""The rights that charts/api gives are those that the edges use: each of them, and no other."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cluster import Cluster
from service.errors import Problem
from service.kube import Kube
from service.releases import Releases
from service.settings import Settings
from tests.contract.conftest import ROOT, VALUES, until
from tests.contract.test_replicas import replica
from tests.proxy import Answer, Proxy

pytestmark = pytest.mark.cluster

_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v1(?:/namespaces/[^/]+)?/(?P<kind>[^/?]+)(?:/(?P<name>[^/?]+))?(?P<sub>/[^?]+)?"
)


def rights_of(answer: Answer) -> set[tuple[str, str, str]]:
    """What (group, resource, verb) Kubernetes asks for before it answers so."""
    found = _PATH.match(answer.path)
    if found is None or ("/namespaces/" not in answer.path and found["kind"] not in ("nodes", "storageclasses")):
        return set()  # Discovery and /version, which everybody may read.
    verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(answer.method)
    if verb is None:
        verb = "get" if found["name"] else "watch" if "watch=1" in answer.path else "list"
    kind = found["kind"] + (found["sub"] or "")
    # Server-side apply of an object that is not there asks for "create" too.
    created = {"create"} if answer.method == "PATCH" and answer.status == 201 else set()
    return {(found["group"] or "", kind, each) for each in {verb, *created}}


def granted(kind: str) -> set[tuple[str, str, str]]:
    """What the Role or ClusterRole of charts/api gives in the servers' namespace."""
    command = [str(ROOT / ".local/bin/helm"), "template", "api", str(ROOT / "charts/api"), "-n", "gameserver-system"]
    text = subprocess.run(
        [*command, "-f", str(ROOT / "charts/api/ci/local-values.yaml")], check=True, capture_output=True, text=True
    ).stdout
    roles: list[dict[str, Any]] = [one for one in yaml.safe_load_all(text) if one and one["kind"] == kind]
    ours = [one for one in roles if one["metadata"].get("namespace", "gameservers") == "gameservers"]
    return {
        (group, resource, verb)
        for role in ours
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_roles_give_what_is_used(
    real_settings: Settings,
    kubeconfig: str,
    new_id: Callable[[], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everything that the edges can do is done once through a proxy that notes the requests."""
    proxy, id = Proxy(kubeconfig), new_id()
    dead = new_id()
    (tmp_path / "dead").mkdir()
    with replica(
        real_settings, kubeconfig, tmp_path / "dead", "install", dead, "PATCH /apis/apps/v1/namespaces/"
    ) as one:
        one.process.kill()
    with proxy.running():
        monkeypatch.setenv("KUBECONFIG", proxy.kubeconfig(tmp_path))
        kube = Kube()
        cluster, releases = Cluster(real_settings, kube), Releases(replace(real_settings, pod_name="rights"), kube)
        cluster.start()
        assert cluster.ready()
        assert cluster.node_host()
        releases.install(id, {**VALUES, "networkPolicy": {"enabled": True}, "rcon": {"visibility": "private"}})
        found = cluster.server(id)
        assert found.claim is not None
        assert found.statefulset is not None
        assert found.pod is None
        assert f"server-{id}-rcon" in found.services
        cluster.disk_class_expandable({"spec": {"storageClassName": "local-path"}})
        cluster.events(id)
        cluster.pod_log_tail(id, 1, False)
        assert cluster.rcon_password(id)
        for text in "abc":
            releases.change(id, lambda values, text=text: {**values, "restartedAt": text})  # type: ignore[misc]
        releases.change(id, lambda values: {**values, "networkPolicy": {"enabled": False}})
        releases.uninstall(id)
        assert cluster.kept_disks()
        cluster.erase_disk(id)

        def recovered() -> bool:
            try:
                releases.install(dead, VALUES)
            except Problem:
                return False
            return True

        until(recovered, 30)
        watched = ("statefulsets", "pods", "services", "persistentvolumeclaims", "secrets")
        used = {right for answer in list(proxy.answers) for right in rights_of(answer)}
        used |= {("apps" if kind == "statefulsets" else "", kind, "watch") for kind in watched if proxy.watched(kind)}
    cluster_wide = {right for right in used if right[1] in ("nodes", "storageclasses")}
    assert used - cluster_wide == granted("Role")
    assert cluster_wide == granted("ClusterRole")
