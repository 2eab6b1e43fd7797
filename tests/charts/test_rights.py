"""The chart gives the API and the controller exactly the rights that they use."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from local.paths import ROOT
from service.backups.jobs import JobSpec
from service.backups.runner import JobRunner
from service.backups.snapshots import VolumeSnapshots
from service.cluster.reader import ClusterReader
from service.errors import ClusterUnavailable
from service.files.accounts import SecretAccounts
from service.helm.releases import HelmReleases
from service.kube.attach import HandshakeRefused
from service.kube.client import Kube
from service.kube.leases import Leases
from service.records.store import RecordStore
from service.servers.diskjob import disk_job
from service.servers.objects import ServerObjects
from service.settings import Settings
from service.tokenstore.watched import WatchedTokens
from tests.charts.rendering import Manifest, render
from tests.support.proxy import Proxy
from tests.support.waiting import until

Rights = set[tuple[str, str, str]]
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
VALUES = {
    "game": "minecraft",
    "replicas": 0,
    "ramGb": 1,
    "diskGb": 1,
    "server": {"customer": "", "options": {}},
    "networkPolicy": {"enabled": True},
}
"""They create every kind of object of the chart gameserver except a pod, which these tests do not need."""

pytestmark = pytest.mark.cluster


def granted(role: Manifest) -> Rights:
    """(API group, resource, verb) for each right of a role."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(requests: list[str]) -> Rights:
    """(API group, resource, verb) for each request, as Kubernetes authorizes it.

    See https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb. The first
    apply of an object creates it, which needs `create` in addition to `patch`.
    """
    rights: Rights = set()
    applied: set[str] = set()
    pattern = r"/api(?:s/([^/]+))?/v\d[^/]*/(?:namespaces/[^/]+/)?([a-z]+)(?:/([^/]+))?(?:/([a-z]+))?"
    for request in requests:
        method, _, rest = request.partition(" ")
        address = urlsplit(rest)
        match = re.fullmatch(pattern, address.path)
        if not match:
            continue  # Discovery, which needs no right.
        group, resource, name, sub = match.groups()
        watching = parse_qs(address.query).get("watch", ["0"])[0] in ("1", "true")
        one = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "POST": "create"}
        many = {"GET": "watch" if watching else "list", "POST": "create", "DELETE": "deletecollection"}
        verbs = {one[method] if name else many[method]}
        if method == "PATCH" and address.path not in applied:
            applied.add(address.path)
            verbs.add("create")
        rights |= {(group or "", f"{resource}/{sub}" if sub else resource, verb) for verb in verbs}
    return rights


@dataclass(frozen=True)
class Servers:
    """A namespace with a service account `api` that has the roles which the chart gives to `name`.

    A StorageClass has the namespace's name. Its driver does not exist.
    """

    kube: Kube
    namespace: str
    role: Manifest
    cluster_role: Manifest


@contextmanager
def servers_of(component: str) -> Iterator[Servers]:
    """The namespace for `api` or `api-controller`."""
    assert "KUBECONFIG" in os.environ, "no cluster: `make test` brings one up"
    kube, name = Kube(), f"rights-{secrets.token_hex(4)}"
    manifests = render("api", {"serversNamespace": name, "tokens": {"existingSecret": "unused"}})
    role, binding = manifests[f"Role/{component}"], manifests[f"RoleBinding/{component}"]
    cluster_role = manifests[f"ClusterRole/gameserver-system-{component}"]
    cluster_binding = manifests[f"ClusterRoleBinding/gameserver-system-{component}"]
    # The installed ones keep their own.
    cluster_role["metadata"]["name"] = cluster_binding["metadata"]["name"] = cluster_binding["roleRef"]["name"] = name
    for each in (binding, cluster_binding):
        each["subjects"][0] |= {"name": "api", "namespace": name}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "api"}}
    kube.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    kube.create(f"/api/v1/namespaces/{name}/serviceaccounts", account)
    kube.create(f"{RBAC}/namespaces/{name}/roles", role)
    kube.create(f"{RBAC}/namespaces/{name}/rolebindings", binding)
    kube.create(f"{RBAC}/clusterroles", cluster_role)
    kube.create(f"{RBAC}/clusterrolebindings", cluster_binding)
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "no-such-driver.example.com",
    }
    kube.create(CLASSES, storage_class)
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "csi": {"driver": "no-such-driver.example.com", "volumeHandle": name},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": name,
        },
    }
    kube.create(VOLUMES, volume)
    yield Servers(kube, name, role, cluster_role)
    kube.delete(f"{VOLUMES}/{name}")
    kube.delete(f"{CLASSES}/{name}")
    kube.delete(f"{RBAC}/clusterrolebindings/{name}")
    kube.delete(f"{RBAC}/clusterroles/{name}")
    kube.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Those of the API."""
    with servers_of("api") as servers:
        yield servers


@pytest.fixture
def controllers_servers() -> Iterator[Servers]:
    """Those of the controller."""
    with servers_of("api-controller") as servers:
        yield servers


def as_account(kube: Kube, namespace: str, folder: Path) -> Path:
    """A kubeconfig of the namespace's service account `api`."""
    token = kube.create(
        f"/api/v1/namespaces/{namespace}/serviceaccounts/api/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
    )["status"]["token"]
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    path = folder / "api.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def kill_in_operation(kube: Kube, namespace: str, revision: str, status: str) -> None:
    """Leave what a replica leaves that is killed in an operation: an unfinished revision, and its Lease."""
    secrets = f"/api/v1/namespaces/{namespace}/secrets/{revision}"
    killed = kube.get(secrets)
    assert killed
    killed["metadata"]["labels"]["status"] = status
    kube.replace(secrets, killed)
    long_ago = "2026-01-01T00:00:00.000000Z"
    spec = {"holderIdentity": "killed", "leaseDurationSeconds": 1, "renewTime": long_ago, "acquireTime": long_ago}
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "server-1"},
        "spec": spec,
    }
    kube.create(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", lease)


def a_job(namespace: str, **more: Any) -> JobSpec:
    """A Job of an operation, which comes to nothing: there is no such image."""
    return JobSpec(
        name="op-1-init",
        namespace=namespace,
        command="init",
        request={},
        server=1,
        operation="op-1",
        image="localhost/no-such-image:1",
        **more,
    )


def test_the_api_uses_each_right_that_it_has_and_needs_no_other(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's whole life, with only the rights of the service account. A proxy records the requests."""
    kube, namespace, role, cluster_role = servers.kube, servers.namespace, servers.role, servers.cluster_role
    proxy = Proxy(str(as_account(kube, namespace, tmp_path)))
    with proxy.running():
        monkeypatch.setenv("KUBECONFIG", proxy.kubeconfig(tmp_path))
        helm = str(ROOT / ".local" / "bin" / "helm")
        settings = replace(Settings(), servers_namespace=namespace, helm=helm, pod_name="rights")
        cluster, releases = ClusterReader(settings), HelmReleases(settings)
        assert cluster.ready()
        releases.install(1, VALUES)
        assert cluster.servers(10, None)[0][0].id == 1
        assert len(cluster.disks()) == 1
        until(lambda: proxy.watched("configmaps"))
        server = cluster.server(1)
        assert server.pod is None
        assert server.statefulset is not None
        assert server.claim is not None
        assert server.services.keys() == {"server-1", "server-1-sftp"}
        assert len(server.releases) == 1
        claim: dict[str, Any] = {"metadata": {}, "spec": {"volumeName": "none"}, "status": {"phase": "Bound"}}
        assert cluster.host(ServerObjects(1, claim=claim)) is None
        claim["metadata"] = {"annotations": {"volume.kubernetes.io/selected-node": "none"}}
        assert cluster.host(ServerObjects(1, claim=claim)) is None
        assert server.events == ()
        assert cluster.rcon_password(1)
        assert cluster.disk_class_expandable(server.claim) is (server.claim["spec"]["storageClassName"] != "local-path")
        assert cluster.volume("none") is None
        assert not cluster.disk_has_snapshots({"spec": {"volumeName": namespace}})
        # Of a server that does not exist, so that it makes no disk.
        cluster.make_disk(disk_job(2, server.statefulset, "localhost/no-such-image:1", []))
        cluster.disk_job(2)
        accounts = SecretAccounts(replace(settings, sftp_namespace="unused"))
        assert accounts.node_local({"spec": {"storageClassName": namespace}})
        cluster.pod_log_tail(1, "none", 10, False)
        assert cluster.consumption(ServerObjects(1, {}, {"metadata": {"name": "server-1-0"}})) is None
        until(lambda: any("metrics.k8s.io" in request for request in proxy.requests))
        assert cluster.log_text(1, "none", tail=10, since=None) is None
        for ram in range(2, 6):  # More revisions than the history keeps.
            assert releases.change(1, lambda values, ram=ram: {**values, "ramGb": ram})  # type: ignore[misc]
        kill_in_operation(kube, namespace, "sh.helm.release.v1.server-1.v5", "pending-upgrade")
        assert releases.change(1, lambda values: {**values, "ramGb": 7})
        assert releases.uninstall(1)
        # The first start would have done this.
        claim_path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/server-1"
        kube.merge(claim_path, {"spec": {"volumeName": "volume-1"}})
        assert [claim["metadata"]["name"] for claim in cluster.kept_disks()] == ["server-1"]
        cluster.reuse_disk(1, "2026-01-31T12:00:00Z")
        with releases.locked(1):
            cluster.erase_disk(1, lambda: releases.confirm(1))
    assert used([*proxy.requests, *proxy.watches]) == granted(role) | granted(cluster_role)


def test_the_controller_uses_each_right_that_it_has_and_needs_no_other(
    controllers_servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes over a server that the API has made, and one that a killed replica has left half deleted."""
    kube, namespace = controllers_servers.kube, controllers_servers.namespace
    helm = str(ROOT / ".local" / "bin" / "helm")
    settings = replace(Settings(), servers_namespace=namespace, helm=helm, pod_name="rights")
    HelmReleases(settings).install(1, VALUES)
    proxy = Proxy(str(as_account(kube, namespace, tmp_path)))
    with proxy.running():
        monkeypatch.setenv("KUBECONFIG", proxy.kubeconfig(tmp_path))
        cluster, releases = ClusterReader(settings), HelmReleases(settings)
        cluster.start()
        until(lambda: cluster.known_ids() == [1])
        cluster.nodes.get("none")
        until(lambda: proxy.watched("configmaps"))
        server = cluster.server(1)
        assert server.pod is None
        assert server.statefulset is not None
        assert server.claim is not None
        assert len(server.services) == 2
        assert cluster.rcon_password(1)
        uid = server.statefulset["metadata"]["uid"]
        assert cluster.annotate(1, uid, "gameserver/test", lambda text: "text") == "text"
        for ram in range(2, 6):
            assert releases.change(1, lambda values, ram=ram: {**values, "ramGb": ram})  # type: ignore[misc]
        records = RecordStore(Kube(), namespace, "test")
        records.delete(records.change(records.create("one", {"a": "1"}), {"a": "2"}))
        with Leases(Kube(), namespace, "rights").hold("gameserver-controller") as lease:
            lease.extend(lease.held, 0)
        assert cluster.volume("none") is None
        jobs = JobRunner(Kube(), namespace, "")
        jobs.watch(namespace, lambda: None).start()
        until(lambda: proxy.watched("jobs"))
        jobs.run(a_job(namespace))
        until(lambda: jobs.remove_all("op-1"))
        snapshots = VolumeSnapshots(Kube(), namespace)
        assert snapshots.class_for("no-such-driver.example.com") is None
        snapshots.take("backup-1", "server-1", "none", uid, {})
        until(lambda: snapshots.remove("backup-1"))
        kill_in_operation(kube, namespace, "sh.helm.release.v1.server-1.v5", "uninstalling")
        with releases.locked(1):
            pass
        assert releases.current(1) is None
    assert kube.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/server-1")
    assert used([*proxy.requests, *proxy.watches]) == granted(controllers_servers.role) | granted(
        controllers_servers.cluster_role
    )


def test_standard_input_needs_two_rights_that_the_chart_grants_when_asked(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """API and controller get no other right for it. With one of the two alone, Kubernetes refuses."""
    kube, namespace = servers.kube, servers.namespace
    base = {"serversNamespace": namespace, "tokens": {"existingSecret": "unused"}}
    with_it, without = render("api", base | {"console": {"stdin": True}}), render("api", base)
    for name in ("Role/api", "Role/api-controller"):
        more = granted(with_it[name]) - granted(without[name])
        assert more == {("", "pods/attach", "get"), ("", "pods/attach", "create")}
    monkeypatch.setenv("KUBECONFIG", str(as_account(kube, namespace, tmp_path)))
    cluster = ClusterReader(replace(Settings(), servers_namespace=namespace))

    def refusal() -> str:
        try:
            with cluster.attached(1, "none", 30):
                return ""
        except (HandshakeRefused, ClusterUnavailable) as error:
            return str(error)

    path = f"{RBAC}/namespaces/{namespace}/roles/api"
    both = ["get", "create"]
    for verbs, expected in (
        (both, "answered 404"),
        (["get"], "denies"),
        (both, "answered 404"),
        (["create"], "denies"),
    ):
        attach = [{"apiGroups": [""], "resources": ["pods/attach"], "verbs": verbs}]
        kube.merge(path, {"rules": without["Role/api"]["rules"] + attach})
        # Kubernetes hears of a role after a moment.
        until(lambda expected=expected: expected in refusal(), 60, refusal)  # type: ignore[misc]


@contextmanager
def namespaces() -> Iterator[tuple[Kube, str, Manifest]]:
    """The servers' namespace and that of the backups, `<name>-backups`, and the controller's role in the second.

    The operator's recovery key is in the second. The account `api` of the first has the controller's roles in both.
    """
    with servers_of("api-controller") as servers:
        kube, name = servers.kube, servers.namespace
        backups = f"{name}-backups"
        store = {"kind": "folder", "folder": {"claim": "unused"}}
        values = {"backups": {"store": store, "recoveryKey": {"existingSecret": "recovery"}}}
        manifests = render("api", {"serversNamespace": name, "tokens": {"existingSecret": "unused"}, **values})
        role, binding = (manifests[f"{kind}/api-controller-backups"] for kind in ("Role", "RoleBinding"))
        binding["subjects"][0] |= {"name": "api", "namespace": name}
        kube.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": backups}})
        kube.create(f"{RBAC}/namespaces/{backups}/roles", role)
        kube.create(f"{RBAC}/namespaces/{backups}/rolebindings", binding)
        recovery = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "recovery"}}
        kube.create(f"/api/v1/namespaces/{backups}/secrets", recovery)
        yield kube, name, role
        kube.delete(f"/api/v1/namespaces/{backups}")


def test_in_the_namespace_of_the_backups_the_controller_runs_jobs_and_reads_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives a Job a copy of a server's key there, and cannot read the recovery key."""
    with namespaces() as (kube, namespace, role):
        backups = f"{namespace}-backups"
        proxy = Proxy(str(as_account(kube, namespace, tmp_path)))
        with proxy.running():
            monkeypatch.setenv("KUBECONFIG", proxy.kubeconfig(tmp_path))
            mine, secrets_there = Kube(), f"/api/v1/namespaces/{backups}/secrets"
            jobs = JobRunner(mine, namespace, backups)
            jobs.watch(backups, lambda: None).start()
            until(lambda: proxy.watched("jobs"))
            jobs.run(a_job(backups, uid="uid-1", key="op-1-init-key", recovery="recovery"))
            copied = kube.get(f"{secrets_there}/op-1-init-key")
            assert copied
            assert copied["data"]["password"]
            until(lambda: jobs.remove_all("op-1"))
            there = [request for request in [*proxy.requests, *proxy.watches] if f"/namespaces/{backups}/" in request]
            assert used(there) == granted(role)
            for refused in (
                lambda: mine.get(f"{secrets_there}/recovery"),
                lambda: mine.all(secrets_there),
                lambda: mine.merge(f"{secrets_there}/recovery", {"data": {}}),
                lambda: mine.delete(f"{secrets_there}/recovery"),
                lambda: mine.create(f"/api/v1/namespaces/{backups}/pods", {}),
            ):
                with pytest.raises(ClusterUnavailable, match="denies"):
                    refused()


@pytest.fixture
def tokens() -> Iterator[tuple[Kube, str, Manifest]]:
    """A namespace with the Secrets of tokens and another one, and an account with only the role for tokens."""
    assert "KUBECONFIG" in os.environ, "no cluster: `make test` brings one up"
    kube, name = Kube(), f"rights-{secrets.token_hex(4)}"
    hashes = [{"name": "shop", "sha256": "0" * 64, "scopes": ["read"]}]
    manifests = render("api", {"tokens": {"hashes": hashes}})
    role, binding = manifests["Role/api-tokens"], manifests["RoleBinding/api-tokens"]
    kept = [manifests["Secret/api-tokens"], manifests["Secret/api-issued-tokens"]]
    for manifest in (role, binding, *kept):
        manifest["metadata"]["namespace"] = name
    binding["subjects"][0]["namespace"] = name
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "api"}}
    other = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"}}
    kube.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    kube.create(f"/api/v1/namespaces/{name}/serviceaccounts", account)
    kube.create(f"{RBAC}/namespaces/{name}/roles", role)
    kube.create(f"{RBAC}/namespaces/{name}/rolebindings", binding)
    for secret in (*kept, other):
        kube.create(f"/api/v1/namespaces/{name}/secrets", secret)
    yield kube, name, role
    kube.delete(f"/api/v1/namespaces/{name}")


def test_of_its_own_namespace_the_api_has_the_tokens_alone(
    tokens: tuple[Kube, str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads and watches two Secrets and writes one of them. It uses every right of the role, and has no other."""
    kube, namespace, role = tokens
    proxy = Proxy(str(as_account(kube, namespace, tmp_path)))
    with proxy.running():
        monkeypatch.setenv("KUBECONFIG", proxy.kubeconfig(tmp_path))
        names: dict[str, Any] = {"tokens_secret": "api-tokens", "issued_tokens_secret": "api-issued-tokens"}
        store = WatchedTokens(replace(Settings(), pod_namespace=namespace, **names))
        store.start()
        store.change(lambda records: {"token.mine": "text"})
        until(lambda: store.issued() == {"token.mine": "text"})
        until(lambda: len(proxy.watches) == 2)
        assert [token.name for token in store.operators()] == ["shop"]
        # Unlike an apply, a merge patch creates nothing.
        assert used([*proxy.requests, *proxy.watches]) - {("", "secrets", "create")} == granted(role)
        collection, mine = f"/api/v1/namespaces/{namespace}/secrets", Kube()
        for refused in (
            lambda: mine.get(f"{collection}/other"),
            lambda: mine.all(collection),
            lambda: mine.all(collection, fieldSelector="metadata.name=other"),
            lambda: mine.merge(f"{collection}/api-tokens", {"data": {}}),
            lambda: mine.merge(f"{collection}/other", {"data": {}}),
            lambda: mine.delete(f"{collection}/api-issued-tokens"),
        ):
            with pytest.raises(ClusterUnavailable, match="denies"):
                refused()
