"""SFTP accounts are stored as Secrets, and missing rights mean that file access is not installed."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from service.errors import ClusterUnavailable, FileAccessNotInstalled, OperationInProgress
from service.files.accounts import Account, AccountsKube, SecretAccounts
from service.kube.client import Conflict
from service.settings import Settings

SECRETS = "/api/v1/namespaces/files/secrets"
KEY = "ssh-ed25519 AAAA me@home"


class FakeKube:
    """A Kubernetes API with objects by path; the next `conflicts` writes fail."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.conflicts = 0
        self.failure: Exception | None = None

    def get(self, path: str, **query: str | int) -> Any:
        self._check()
        if "%2F" in path or len(path.split("/")) > 7:
            # As the real API answers 403: it takes what follows a slash, or an escaped one, for a subresource.
            raise FileAccessNotInstalled
        return self.objects.get(path)

    def create(self, path: str, body: Any) -> Any:
        self._check(write=True)
        self.objects[f"{path}/{body['metadata']['name']}"] = body
        return body

    def replace(self, path: str, body: Any) -> Any:
        self._check(write=True)
        self.objects[path] = body
        return body

    def delete(self, path: str) -> None:
        self._check()
        self.objects.pop(path, None)

    def _check(self, write: bool = False) -> None:
        if self.failure is not None:
            raise self.failure
        if write and self.conflicts:
            self.conflicts -= 1
            raise Conflict("another write was faster")


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def accounts(kube: FakeKube) -> SecretAccounts:
    return SecretAccounts(replace(Settings(), sftp_namespace="files"), kube)  # type: ignore[arg-type]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_an_account_is_written_as_the_agents_expect_it(accounts: SecretAccounts, kube: FakeKube) -> None:
    account = Account("$7$hash", (KEY,))
    assert accounts.change(7, lambda _: account) == account
    assert kube.objects == {
        f"{SECRETS}/server-7": {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "server-7",
                "namespace": "files",
                "labels": {
                    "app.kubernetes.io/component": "sftp-account",
                    "app.kubernetes.io/part-of": "gameserver-cluster",
                    "app.kubernetes.io/managed-by": "gameserver-api",
                    "gameserver/id": "7",
                },
            },
            "type": "Opaque",
            "data": {"password-hash": encoded("$7$hash"), "authorized-keys": encoded(f"{KEY}\n")},
        }
    }
    assert accounts.account(7) == account


def test_an_account_has_its_servers_uid(accounts: SecretAccounts, kube: FakeKube) -> None:
    """Also an account that was created before servers had a uid."""
    accounts.change(7, lambda _: Account("$7$none"))
    for uid in ("first", "second"):
        account = Account(f"$7${uid}", (), uid)
        accounts.change(7, lambda _, account=account: account)  # type: ignore[misc]
        assert kube.objects[f"{SECRETS}/server-7"]["metadata"]["annotations"] == {"gameserver/uid": uid}
        assert accounts.account(7).uid == uid


def test_a_change_keeps_the_secrets_other_fields(accounts: SecretAccounts, kube: FakeKube) -> None:
    """Above all its version, so that concurrent changes are not lost."""
    accounts.change(7, lambda _: Account("$7$hash", ()))
    kube.objects[f"{SECRETS}/server-7"]["metadata"]["resourceVersion"] = "5"
    accounts.change(7, lambda account: replace(account, password_hash=None))
    assert kube.objects[f"{SECRETS}/server-7"]["metadata"]["resourceVersion"] == "5"
    assert kube.objects[f"{SECRETS}/server-7"]["data"] == {}


def test_a_change_without_effect_writes_nothing(accounts: SecretAccounts, kube: FakeKube) -> None:
    accounts.change(7, lambda account: account)
    assert kube.objects == {}


def test_a_change_is_retried_after_conflicts_but_not_endlessly(accounts: SecretAccounts, kube: FakeKube) -> None:
    kube.conflicts = 2
    assert accounts.change(7, lambda _: Account("$7$hash")) == Account("$7$hash")
    kube.conflicts = 9
    with pytest.raises(OperationInProgress):
        accounts.change(7, lambda _: Account())


def test_removing_is_idempotent_and_works_without_the_chart(accounts: SecretAccounts, kube: FakeKube) -> None:
    accounts.change(7, lambda _: Account("$7$hash"))
    accounts.remove(7)
    accounts.remove(7)
    assert kube.objects == {}
    kube.failure = FileAccessNotInstalled()
    accounts.remove(7)


def test_fingerprints_need_the_daemonset_and_its_config_map(accounts: SecretAccounts, kube: FakeKube) -> None:
    daemonsets, published = (
        "/apis/apps/v1/namespaces/files/daemonsets",
        "/api/v1/namespaces/files/configmaps/sftp-host-key",
    )
    kube.objects[published] = {"data": {"fingerprints": "SHA256:a\nSHA256:b\n"}}
    with pytest.raises(FileAccessNotInstalled):
        accounts.host_keys()
    kube.objects[daemonsets] = {"items": [{}]}
    assert accounts.host_keys() == ["SHA256:a", "SHA256:b"]
    del kube.objects[published]
    with pytest.raises(FileAccessNotInstalled):
        accounts.host_keys()


def affinity(*nodes: str, key: str = "kubernetes.io/hostname") -> dict[str, Any]:
    """A volume's affinity to these nodes."""
    expression = {"key": key, "operator": "In", "values": list(nodes)}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}


DRIVER = "disk-driver.gameserver"
NODE = f"{DRIVER}/node"
FOLDER = {"folder": "/var/lib/gameserver-disks/mounts/pvc-1"}


@pytest.mark.parametrize(
    ("spec", "local"),
    [
        ({"hostPath": {"path": "/a"}, "nodeAffinity": affinity("node1")}, True),
        ({"local": {"path": "/a"}, "nodeAffinity": affinity("node1")}, True),
        ({"hostPath": {"path": "/a"}}, False),
        ({"hostPath": {"path": "/a"}, "nodeAffinity": affinity("node1", "node2")}, False),
        ({"local": {"path": "/a"}, "nodeAffinity": affinity("zone1", key="topology.kubernetes.io/zone")}, False),
        ({"local": {"path": "/a"}, "nodeAffinity": {"required": {"nodeSelectorTerms": []}}}, False),
        ({"csi": {"driver": "cloud"}, "nodeAffinity": affinity("node1")}, False),
        ({"csi": {"driver": "cloud", "volumeAttributes": FOLDER}, "nodeAffinity": affinity("node1", key=NODE)}, False),
        ({"csi": {"driver": DRIVER, "volumeAttributes": FOLDER}, "nodeAffinity": affinity("node1", key=NODE)}, True),
        ({"csi": {"driver": DRIVER}, "nodeAffinity": affinity("node1", key=NODE)}, False),
        ({"csi": {"driver": DRIVER, "volumeAttributes": FOLDER}}, False),
        ({"nfs": {"server": "a", "path": "/a"}}, False),
    ],
)
def test_only_folders_of_one_node_can_be_reached(
    accounts: SecretAccounts, kube: FakeKube, spec: dict[str, Any], local: bool
) -> None:
    kube.objects["/api/v1/persistentvolumes/pv"] = {"spec": spec}
    assert accounts.node_local({"spec": {"volumeName": "pv"}}) is local


def test_an_unbound_disk_may_still_become_node_local(accounts: SecretAccounts) -> None:
    assert accounts.node_local({"spec": {}})
    assert accounts.node_local({"spec": {"volumeName": "pv-soon"}})
    assert accounts.node_local({"spec": {"storageClassName": "gone"}})


@pytest.mark.parametrize(
    ("provisioner", "local"),
    [
        ("rancher.io/local-path", True),
        ("kubernetes.io/no-provisioner", True),
        (DRIVER, True),
        ("ebs.csi.example.com", False),
    ],
)
def test_the_storage_class_of_another_csi_driver_makes_no_folders(
    accounts: SecretAccounts, kube: FakeKube, provisioner: str, local: bool
) -> None:
    """It is known before there is a disk: the driver's CSIDriver has the provisioner's name."""
    kube.objects["/apis/storage.k8s.io/v1/storageclasses/fast"] = {"provisioner": provisioner}
    for driver in (DRIVER, "ebs.csi.example.com"):
        kube.objects[f"/apis/storage.k8s.io/v1/csidrivers/{driver}"] = {}
    assert accounts.node_local({"spec": {"storageClassName": "fast"}}) is local


def test_missing_rights_mean_no_file_access_but_an_outage_stays_one() -> None:
    with pytest.raises(FileAccessNotInstalled):
        AccountsKube._checked(403, b"forbidden", SECRETS)
    with pytest.raises(ClusterUnavailable):
        AccountsKube._checked(503, b"later", SECRETS)
    assert AccountsKube._checked(200, b"{}", SECRETS) == b"{}"
