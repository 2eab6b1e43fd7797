"""Kubernetes objects are cut down to what they mean; what is doubtful counts as absent."""

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
    found = account(secret(password_hash=HASH + "\n", authorized_keys=f"{KEY} me@home\n\n# a remark\n{KEY} again\n"))
    assert found == Account("7", HASH, (KEY,))


def test_an_account_without_data_lets_nobody_in() -> None:
    assert account({"metadata": {"name": "server-7", "labels": {"gameserver/id": "7"}}}) == Account("7", None, ())


@pytest.mark.parametrize(
    "hash_",
    [
        "$7$86..../....QhpbS1Cs2QmKjKVmMnHhT1$QhpbS1Cs2QmKjKVmMnHhT1QhpbS1Cs2QmKjKVmMnHh2",
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$tnSYvahCwPBHKZUspmcxMfb0.WiB9W.zEaKlOBL35rC",
    ],
)
def test_the_hashes_of_crypt_are_taken(hash_: str) -> None:
    """Among them the API's own."""
    assert account(secret(password_hash=hash_)) == Account("7", hash_, ())


@pytest.mark.parametrize(
    "hash_",
    ["", "*", "!", "plain", "$1$salt$md5md5md5md5md5md5md5", f"{HASH}:0:0", f"{HASH}\nroot:x:0:0::/:/bin/sh", "$6$x"],
)
def test_what_is_no_hash_is_no_password(hash_: str) -> None:
    found = account(secret(password_hash=hash_))
    assert found is not None
    assert found.password_hash is None


@pytest.mark.parametrize(
    "line",
    [f'command="/bin/sh" {KEY}', f'environment="A=B" {KEY}', "ssh-dss AAAA", "cert-authority AAAA", "not a key"],
)
def test_a_line_with_options_or_without_a_key_is_left_out(line: str) -> None:
    assert account(secret(authorized_keys=line)) == Account("7", None, ())


@pytest.mark.parametrize(
    ("name", "server"), [("server-8", "7"), ("server-07", "07"), ("server-0", "0"), ("root", "root"), ("server-١", "١")]
)
def test_a_secret_whose_name_and_label_do_not_agree_on_a_server_is_none(name: str, server: str) -> None:
    assert account(secret(name, server)) is None


def a_claim(**changes: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "server-7", "labels": {"gameserver/id": "7"}, **changes.pop("metadata", {})},
        "spec": {"volumeName": "pv"},
        "status": {"phase": "Bound"},
        **changes,
    }


def test_a_bound_claim_names_its_volume() -> None:
    assert claim(a_claim()) == Claim("7", "pv")


def test_account_and_claim_say_which_server_they_are_of() -> None:
    """Where the API has said so; a hand may have written anything there."""
    of_account = secret()
    of_account["metadata"]["annotations"] = {"gameserver/uid": "a"}
    found = account(of_account)
    assert found is not None
    assert found.uid == "a"
    for text, uid in (('{"uid": "a"}', "a"), ("{}", ""), ("[]", ""), ("{", ""), ("7", "")):
        annotated = a_claim(metadata={"annotations": {"gameserver/server": text}})
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
def test_a_claim_that_is_not_bound_or_on_its_way_out_is_none(changes: dict[str, Any]) -> None:
    assert claim(a_claim(**changes)) is None


def hostname(*nodes: str, key: str = "kubernetes.io/hostname", operator: str = "In") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(nodes)}]}


def a_volume(*terms: dict[str, Any], source: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "pv"},
        "spec": {
            **(source or {"hostPath": {"path": "/volumes/a"}}),
            "claimRef": {"namespace": "gameservers", "name": "server-7"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": list(terms)}},
        },
    }


@pytest.mark.parametrize("source", [{"hostPath": {"path": "/volumes/a"}}, {"local": {"path": "/volumes/a"}}])
def test_a_hostpath_or_local_volume_of_one_node_is_known_by_its_folder(source: dict[str, Any]) -> None:
    assert volume(a_volume(hostname("one"), source=source)) == Volume("pv", "one", "/volumes/a", "gameservers/server-7")


def test_a_volume_may_name_its_node_by_field() -> None:
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["one"]}]}
    assert volume(a_volume(term)) == Volume("pv", "one", "/volumes/a", "gameservers/server-7")


@pytest.mark.parametrize(
    "broken",
    [
        a_volume(),
        a_volume(hostname("one", "two")),
        a_volume(hostname("one"), hostname("two")),
        a_volume(hostname("one"), hostname("a", key="topology.kubernetes.io/zone")),
        a_volume(hostname("one", operator="NotIn")),
        a_volume(hostname("one"), source={"csi": {"driver": "cloud"}}),
        a_volume(hostname("one"), source={"nfs": {"server": "x", "path": "/volumes/a"}}),
    ],
)
def test_a_volume_that_is_not_one_nodes_own_folder_is_none(broken: dict[str, Any]) -> None:
    assert volume(broken) is None


def test_a_service_is_told_by_its_name_and_label() -> None:
    metadata = {"name": "server-7-sftp", "uid": "u", "labels": {"gameserver/id": "7"}}
    assert service({"metadata": metadata}) == Service("7", "server-7-sftp", "u")
    assert service({"metadata": {**metadata, "name": "server-7"}}) is None
    assert service({"metadata": {**metadata, "deletionTimestamp": "x"}}) is None


def test_a_slice_tells_where_it_leads() -> None:
    found = {
        "metadata": {"name": "server-7-sftp", "resourceVersion": "5", "ownerReferences": [{"uid": "u"}]},
        "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "one", "targetRef": {"name": "pod"}}],
    }
    assert endpoint_slice(found) == Slice("server-7-sftp", "u", ("10.0.0.1",), "one", "pod", "5")
    assert endpoint_slice({"metadata": {"name": "x", "resourceVersion": "1"}, "endpoints": None}) == Slice(
        "x", "", (), "", "", "1"
    )
