"""Kubernetes objects are reduced to small records; invalid data counts as absent."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from disk_agent.objects import Account, Claim, Service, Slice, Volume, account, claim, endpoint_slice, service, volume

HASH = "$6$saltsaltsaltsalt$" + "a" * 86
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGm8z2c5Yx1n8tY0vIY2T0x3sO0mB7x0c8Y9m0Q2b3c4"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(name: str = "server-7", server: str = "7", **data: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"gameserver/id": server}},
        "data": {key.replace("_", "-"): encoded(value) for key, value in data.items()},
    }


def test_an_account_has_its_password_hash_and_its_keys_without_comments() -> None:
    lines = f"{KEY} me@home\n\n# a remark\n{KEY} again\n"
    assert account(secret(password_hash=HASH + "\n", authorized_keys=lines)) == Account("7", HASH, (KEY,))


def test_an_account_without_data_has_no_credentials() -> None:
    assert account({"metadata": {"name": "server-7", "labels": {"gameserver/id": "7"}}}) == Account("7", None, ())


@pytest.mark.parametrize(
    "hash_",
    [
        "$7$86..../....QhpbS1Cs2QmKjKVmMnHhT1$QhpbS1Cs2QmKjKVmMnHhT1QhpbS1Cs2QmKjKVmMnHh2",
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$tnSYvahCwPBHKZUspmcxMfb0.WiB9W.zEaKlOBL35rC",
    ],
)
def test_hashes_of_crypt_are_accepted(hash_: str) -> None:
    """The first is in the format that the API writes."""
    assert account(secret(password_hash=hash_)) == Account("7", hash_, ())


@pytest.mark.parametrize(
    "hash_",
    ["", "*", "!", "plain", "$1$salt$md5md5md5md5md5md5md5", f"{HASH}:0:0", f"{HASH}\nroot:x:0:0::/:/bin/sh", "$6$x"],
)
def test_text_that_is_no_hash_is_no_password(hash_: str) -> None:
    record = account(secret(password_hash=hash_))
    assert record is not None
    assert record.password_hash is None


@pytest.mark.parametrize(
    "line",
    [f'command="/bin/sh" {KEY}', f'environment="A=B" {KEY}', "ssh-dss AAAA", "cert-authority AAAA", "not a key"],
)
def test_a_line_with_options_or_without_a_key_is_left_out(line: str) -> None:
    assert account(secret(authorized_keys=line)) == Account("7", None, ())


@pytest.mark.parametrize(
    ("name", "server"), [("server-8", "7"), ("server-07", "07"), ("server-0", "0"), ("root", "root"), ("server-١", "١")]
)
def test_a_secret_is_no_account_unless_its_name_and_label_name_one_server(name: str, server: str) -> None:
    assert account(secret(name, server)) is None


def claim_object(**changes: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "server-7", "labels": {"gameserver/id": "7"}, **changes.pop("metadata", {})},
        "spec": {"volumeName": "pv"},
        "status": {"phase": "Bound"},
        **changes,
    }


def test_a_bound_claim_names_its_volume() -> None:
    assert claim(claim_object()) == Claim("7", "pv")


def test_account_and_claim_have_their_servers_uid() -> None:
    """If their annotation has one: anything may be written there."""
    account_secret = secret()
    account_secret["metadata"]["annotations"] = {"gameserver/uid": "a"}
    record = account(account_secret)
    assert record is not None
    assert record.uid == "a"
    for text, uid in (('{"uid": "a"}', "a"), ("{}", ""), ("[]", ""), ("{", ""), ("7", "")):
        annotated = claim_object(metadata={"annotations": {"gameserver/server": text}})
        assert claim(annotated) == Claim("7", "pv", uid)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": {"phase": "Pending"}},
        {"spec": {}},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"metadata": {"name": "other"}},
    ],
)
def test_a_claim_that_is_unbound_or_being_deleted_is_left_out(changes: dict[str, Any]) -> None:
    assert claim(claim_object(**changes)) is None


def hostname(*nodes: str, key: str = "kubernetes.io/hostname", operator: str = "In") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(nodes)}]}


def volume_object(*terms: dict[str, Any], source: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "pv"},
        "spec": {
            **(source or {"hostPath": {"path": "/volumes/a"}}),
            "claimRef": {"namespace": "gameservers", "name": "server-7"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": list(terms)}},
        },
    }


@pytest.mark.parametrize("source", [{"hostPath": {"path": "/volumes/a"}}, {"local": {"path": "/volumes/a"}}])
def test_a_hostpath_or_local_volume_of_one_node_has_a_folder(source: dict[str, Any]) -> None:
    record = volume(volume_object(hostname("one"), source=source))
    assert record == Volume("pv", "one", "/volumes/a", "gameservers/server-7")


def test_a_volume_may_name_its_node_by_field() -> None:
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["one"]}]}
    assert volume(volume_object(term)) == Volume("pv", "one", "/volumes/a", "gameservers/server-7")


def disk_object(*terms: dict[str, Any], driver: str = "disk-driver.gameserver", **attributes: str) -> dict[str, Any]:
    source = {"csi": {"driver": driver, "volumeHandle": "pvc-1", "volumeAttributes": attributes}}
    return volume_object(*terms, source=source)


DISK_FOLDER = "/var/lib/gameserver-disks/mounts/pvc-1"
DISK_NODE = "disk-driver.gameserver/node"


def test_a_disk_of_our_driver_says_where_it_is_mounted() -> None:
    record = volume(disk_object(hostname("one", key=DISK_NODE), folder=DISK_FOLDER))
    assert record == Volume("pv", "one", DISK_FOLDER, "gameservers/server-7", is_mount=True)


@pytest.mark.parametrize(
    "broken",
    [
        disk_object(hostname("one", key=DISK_NODE)),
        disk_object(folder=DISK_FOLDER),
        # Our driver's volumes are by its own key, and no other driver's volume may name a folder.
        disk_object(hostname("one"), folder=DISK_FOLDER),
        disk_object(hostname("one", "two", key=DISK_NODE), folder=DISK_FOLDER),
        disk_object(hostname("one", key=DISK_NODE), driver="cloud", folder=DISK_FOLDER),
        disk_object(hostname("one"), driver="cloud", folder=DISK_FOLDER),
        volume_object(hostname("one", key=DISK_NODE)),
        volume_object(),
        volume_object(hostname("one", "two")),
        volume_object(hostname("one"), hostname("two")),
        volume_object(hostname("one"), hostname("a", key="topology.kubernetes.io/zone")),
        volume_object(hostname("one", operator="NotIn")),
        volume_object(hostname("one"), source={"csi": {"driver": "cloud"}}),
        volume_object(hostname("one"), source={"nfs": {"server": "x", "path": "/volumes/a"}}),
    ],
)
def test_a_volume_that_is_no_folder_of_one_node_is_left_out(broken: dict[str, Any]) -> None:
    assert volume(broken) is None


def test_a_service_is_recognised_by_its_name_and_label() -> None:
    metadata = {"name": "server-7-sftp", "uid": "u", "labels": {"gameserver/id": "7"}}
    assert service({"metadata": metadata}) == Service("7", "server-7-sftp", "u")
    assert service({"metadata": {**metadata, "name": "server-7"}}) is None
    assert service({"metadata": {**metadata, "deletionTimestamp": "x"}}) is None


def test_a_service_says_whether_its_server_is_suspended() -> None:
    """By the annotation that the chart writes on it. A Service of an earlier chart has none."""
    metadata = {"name": "server-7-sftp", "uid": "u", "labels": {"gameserver/id": "7"}}
    for written, suspended in (
        ({"gameserver/suspended": "true"}, True),
        ({"gameserver/suspended": "false"}, False),
        ({"example.com/a": "b"}, False),
        (None, False),
    ):
        record = Service("7", "server-7-sftp", "u", suspended)
        assert service({"metadata": {**metadata, "annotations": written}}) == record


def test_a_slice_says_where_it_leads() -> None:
    slice_object = {
        "metadata": {"name": "server-7-sftp", "resourceVersion": "5", "ownerReferences": [{"uid": "u"}]},
        "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "one", "targetRef": {"name": "pod"}}],
    }
    assert endpoint_slice(slice_object) == Slice("server-7-sftp", "u", ("10.0.0.1",), "one", "pod", "5")
    assert endpoint_slice({"metadata": {"name": "x", "resourceVersion": "1"}, "endpoints": None}) == Slice(
        "x", "", (), "", "", "1"
    )
