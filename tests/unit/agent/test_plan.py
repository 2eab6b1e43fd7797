"""A node offers a disk when the server exists, has an account, and its disk is here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from disk_agent.objects import Account, Claim, Service, Slice, Volume
from disk_agent.plan import Access, Plan, View, allowed, endpoint_slice, plan
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


def changed(**changes: Any) -> Plan:
    return plan(replace(VIEW, **changes), SETTINGS)


def test_all_in_place_offers_the_disk_and_writes_nothing() -> None:
    assert plan(VIEW, SETTINGS) == Plan(ACCESS, (), ())


def test_without_an_account_the_port_leads_here_all_the_same() -> None:
    assert changed(accounts=[], slices=[]) == Plan({}, (SERVICE,), ())


@pytest.mark.parametrize(
    "found",
    [
        replace(HERE, addresses=("10.0.0.1",)),
        replace(HERE, node="two"),
        replace(HERE, pod="sftp-old"),
        replace(HERE, owner="an earlier Service"),
    ],
)
def test_a_slice_that_differs_is_written_again(found: Slice) -> None:
    assert changed(slices=[found]) == Plan(ACCESS, (SERVICE,), ())


@pytest.mark.parametrize(
    ("of_account", "of_disk", "enters"),
    [("a", "a", True), ("a", "b", False), ("", "b", True), ("a", "", True)],
)
def test_an_account_of_an_earlier_server_lets_nobody_in(of_account: str, of_disk: str, enters: bool) -> None:
    """Ids are used again. Where nobody has said which server it is, the id counts."""
    account = replace(ACCOUNT, uid=of_account)
    offered = changed(accounts=[account], claims=[Claim("7", "pv", of_disk)]).accesses
    assert offered == ({"7": Access(account, "/volumes/a")} if enters else {})


def test_a_kept_disk_without_a_server_lets_nobody_in() -> None:
    assert changed(services=[], slices=[]) == Plan({}, (), ())


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
def test_a_disk_that_is_elsewhere_or_not_the_servers_is_not_offered_and_its_slice_taken_back(volume: Volume) -> None:
    assert changed(volumes=[volume]) == Plan({}, (), (HERE,))


def test_a_slice_of_another_node_is_left_to_it() -> None:
    assert changed(volumes=[replace(VOLUME, node="two")], slices=[replace(HERE, node="two")]) == Plan({}, (), ())


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
def test_only_folders_strictly_inside_the_operators_are_allowed(folder: str, is_allowed: bool) -> None:
    assert allowed(folder, ["/volumes/"]) is is_allowed


def test_the_slice_leads_to_this_pod_and_goes_with_its_service() -> None:
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
