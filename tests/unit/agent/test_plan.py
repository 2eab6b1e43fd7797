"""A node offers a disk if its server exists and has an account, and the disk is on this node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from disk_agent.objects import Account, Claim, Service, Slice, Volume
from disk_agent.plan import Access, Plan, View, allowed, endpoint_slice, local_disks, plan
from disk_agent.settings import Settings

SETTINGS = Settings(
    node="one",
    pod="sftp-abc",
    pod_uid="p",
    pod_ip="10.0.0.9",
    namespace="gameserver-sftp",
    servers_namespace="gameservers",
    volume_folders=("/volumes",),
    uid=1000,
    gid=1000,
)
ACCOUNT = Account("7", None, ("ssh-ed25519 AAAA",))
SERVICE = Service("7", "server-7-sftp", "u")
VOLUME = Volume("pv", "one", "/volumes/a", "gameservers/server-7")
HERE = Slice("server-7-sftp", "u", ("10.0.0.9",), "one", "sftp-abc", "5")
VIEW = View([ACCOUNT], [Claim("7", "pv")], [VOLUME], [SERVICE], [HERE])
ACCESS = {"7": Access(ACCOUNT, "/volumes/a")}


def plan_with(**changes: Any) -> Plan:
    return plan(replace(VIEW, **changes), SETTINGS)


def test_if_all_is_in_place_the_disk_is_offered_and_nothing_is_written() -> None:
    assert plan(VIEW, SETTINGS) == Plan(ACCESS, (), ())


def test_the_port_leads_here_even_without_an_account() -> None:
    assert plan_with(accounts=[], slices=[]) == Plan({}, (SERVICE,), ())


@pytest.mark.parametrize(
    "existing",
    [
        replace(HERE, addresses=("10.0.0.1",)),
        replace(HERE, node="two"),
        replace(HERE, pod="sftp-old"),
        replace(HERE, owner="an earlier Service"),
    ],
)
def test_a_slice_that_differs_is_written_again(existing: Slice) -> None:
    assert plan_with(slices=[existing]) == Plan(ACCESS, (SERVICE,), ())


@pytest.mark.parametrize(
    ("account_uid", "claim_uid", "is_offered"),
    [("a", "a", True), ("a", "b", False), ("", "b", True), ("a", "", True)],
)
def test_an_account_of_an_earlier_server_gives_no_access(account_uid: str, claim_uid: str, is_offered: bool) -> None:
    """Ids are used again, so the uids have to match. If one of them is unknown, the id decides."""
    account = replace(ACCOUNT, uid=account_uid)
    accesses = plan_with(accounts=[account], claims=[Claim("7", "pv", claim_uid)]).accesses
    assert accesses == ({"7": Access(account, "/volumes/a")} if is_offered else {})


def test_a_suspended_server_gives_no_access_and_keeps_its_port() -> None:
    """Its accounts are removed from the node, which ends their sessions."""
    assert plan_with(services=[replace(SERVICE, suspended=True)]) == Plan({}, (), ())


def test_a_disk_of_our_driver_is_offered_as_a_mount() -> None:
    volumes = [replace(VOLUME, is_mount=True)]
    assert plan_with(volumes=volumes) == Plan({"7": Access(ACCOUNT, "/volumes/a", is_mount=True)}, (), ())


def test_a_kept_disk_is_not_offered() -> None:
    assert plan_with(services=[], slices=[]) == Plan({}, (), ())


def test_the_disks_of_a_node_are_those_of_all_its_claims() -> None:
    """With an account or without, kept or not; as far as this node has them."""
    claims = [Claim("7", "pv"), Claim("8", "pv-8"), Claim("9", "pv-9"), Claim("10", "not made")]
    eight = Volume("pv-8", "one", "/volumes/b", "gameservers/server-8")
    volumes = [VOLUME, eight, Volume("pv-9", "two", "/volumes/c", "gameservers/server-9")]
    assert local_disks(claims, volumes, SETTINGS) == {"7": (claims[0], VOLUME), "8": (claims[1], eight)}


@pytest.mark.parametrize(
    "volume",
    [
        replace(VOLUME, node="two"),
        replace(VOLUME, claim="gameservers/server-8"),
        replace(VOLUME, claim="elsewhere/server-7"),
        replace(VOLUME, folder="/etc"),
        replace(VOLUME, folder="/volumes/../etc"),
    ],
)
def test_a_disk_of_another_node_or_server_is_not_offered_and_its_slice_is_retracted(volume: Volume) -> None:
    assert plan_with(volumes=[volume]) == Plan({}, (), (HERE,))


def test_a_slice_of_another_node_is_left_alone() -> None:
    assert plan_with(volumes=[replace(VOLUME, node="two")], slices=[replace(HERE, node="two")]) == Plan({}, (), ())


@pytest.mark.parametrize(
    ("folder", "is_allowed"),
    [
        ("/volumes/a", True),
        ("/volumes/a/b/", True),
        ("/volumes", False),
        ("/volumes/", False),
        ("/volumes2/a", False),
        ("/volumes/../etc", False),
        ("/volumes/./a", False),
        ("volumes/a", False),
    ],
)
def test_only_folders_strictly_inside_the_volume_folders_are_allowed(folder: str, is_allowed: bool) -> None:
    assert allowed(folder, ["/volumes/"]) is is_allowed


def test_the_slice_leads_to_this_pod_and_is_deleted_with_its_service() -> None:
    assert endpoint_slice(SERVICE, SETTINGS) == {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "server-7-sftp",
            "namespace": "gameservers",
            "labels": {
                "kubernetes.io/service-name": "server-7-sftp",
                "endpointslice.kubernetes.io/managed-by": "sftp-agent.gameserver",
                "gameserver/id": "7",
            },
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "server-7-sftp", "uid": "u"}],
        },
        "addressType": "IPv4",
        "ports": [{"name": "sftp", "port": 2022, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": ["10.0.0.9"],
                "conditions": {"ready": True},
                "nodeName": "one",
                "targetRef": {"kind": "Pod", "name": "sftp-abc", "namespace": "gameserver-sftp", "uid": "p"},
            }
        ],
    }
