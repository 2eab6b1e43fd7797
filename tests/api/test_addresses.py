"""Hosts and ports of servers, which must be the same in every call."""

from __future__ import annotations

from typing import Any

import pytest

from service.kube.times import now
from tests.api.conftest import SIZES, Client
from tests.support.fakes import World

URL = "/api/v1/server/1/"
NODE = "203.0.113.7"


def hosts(client: Client) -> dict[str, Any]:
    """The host of each port; fails unless the server, the list and the port calls agree."""
    server: Any = client.get(URL).json
    (listed,) = client.get("/api/v1/server/").json["servers"]  # type: ignore[index]
    assert listed == {key: value for key, value in server.items() if key != "success"}
    by_port = {kind: port["host"] for kind, port in server["ports"].items()}
    for kind, port in server["ports"].items():
        for method in ("PATCH", "GET"):
            assert client.call(method, f"{URL}port/{kind}").json == {"success": True, **port}
    assert server["host"] == by_port.get("primary")
    return by_port


def test_each_port_has_its_own_host(client: Client) -> None:
    """A private RCON has a host inside the cluster; the game has the host of its node."""
    client.post(URL, {**SIZES, "rcon": "private"})
    assert hosts(client) == {"primary": NODE, "rcon": "server-1-rcon.gameservers.svc"}


def test_there_is_no_host_before_the_disk_has_a_node(client: Client, world: World) -> None:
    """The port is known even then."""
    client.post(URL, {**SIZES, "start": False})
    world.claims[1]["status"]["phase"] = "Pending"
    assert hosts(client) == {"primary": None, "rcon": None}
    rcon: Any = client.get(f"{URL}rcon").json
    assert (rcon["host"], rcon["port"]) == (None, 31002)
    world.claims[1]["status"]["phase"] = "Bound"
    assert hosts(client) == {"primary": NODE, "rcon": NODE}


def test_the_operators_host_replaces_the_nodes_addresses(make_app: Any, world: World) -> None:
    """It is known at once, and every node then forwards to the server."""
    client = Client(make_app(external_host="play.example").test_client())
    client.post(URL, {**SIZES, "start": False})
    world.claims[1]["status"]["phase"] = "Pending"
    assert hosts(client) == {"primary": "play.example", "rcon": "play.example"}
    assert world.values[1]["server"]["behindOneHost"]


@pytest.mark.parametrize("call", ["restart", "start", "resize"])
def test_an_older_server_gets_or_loses_the_operators_host_with_its_next_change(
    make_app: Any, world: World, call: str
) -> None:
    """A call that changes nothing does not change its Service."""
    with_host, without = (Client(make_app(external_host=host).test_client()) for host in ("play.example", ""))
    without.post(URL, SIZES)
    for number, client in enumerate((with_host, without)):
        before = dict(world.values[1]["server"])
        client.patch(f"{URL}start")
        assert world.values[1]["server"] == before
        if call == "start":
            client.patch(f"{URL}stop")
        client.patch(URL, {"ram_gb": 3 + number}) if call == "resize" else client.patch(f"{URL}{call}")
        assert world.values[1]["server"].get("behindOneHost", False) is (client is with_host)
        assert "service" not in world.values[1]


def test_the_operators_traffic_policy_wins(make_app: Any, world: World, tmp_path: Any) -> None:
    """The operator's host may already lead to the right node."""
    path = tmp_path / "server-values.yaml"
    path.write_text("all: {service: {externalTrafficPolicy: Local}}\n")
    client = Client(make_app(external_host="play.example", server_values_file=path).test_client())
    client.post(URL, SIZES)
    assert world.values[1]["service"] == {"externalTrafficPolicy": "Local"}


def test_of_a_load_balancers_addresses_the_disks_node_has_one_that_stays(client: Client, world: World) -> None:
    """k3s' ServiceLB gives the sorted addresses of all nodes, so the first one changes as nodes come and go."""
    client.post(URL, SIZES)
    service = world.services["server-1"]
    service["spec"]["type"] = "LoadBalancer"
    service["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]}}
    assert hosts(client)["primary"] == "192.0.2.1"
    world.host = "192.0.2.2"
    assert hosts(client)["primary"] == "192.0.2.2"
    world.host = "198.51.100.1"
    assert hosts(client)["primary"] == "192.0.2.1"


def shown(client: Client) -> list[dict[str, Any]]:
    """The ports that `GET` shows."""
    server: Any = client.get(URL).json
    return list(server["ports"].values())


def test_a_load_balancer_that_never_comes_is_said_and_not_waited_for(make_app: Any, world: World) -> None:
    """As where nothing in the cluster makes load balancers. It was to be tried again for ever."""
    client = Client(make_app(external_host="play.example").test_client())
    client.post(URL, SIZES)
    service = world.services["server-1"]
    service["spec"] = {"type": "LoadBalancer", "ports": service["spec"]["ports"]}
    service["metadata"]["creationTimestamp"] = now()
    assert [port["host"] for port in shown(client)] == [None, None]
    soon: Any = client.patch(f"{URL}port/primary")
    assert (soon.status_code, soon.json["type"]) == (503, "/problems/port-not-ready")

    service["metadata"]["creationTimestamp"] = made = "2026-01-31T12:00:00Z"
    assert [port["host"] for port in shown(client)] == [None, None]
    for call in (client.patch(f"{URL}port/primary"), client.get(f"{URL}rcon")):
        answer: Any = call
        assert (answer.status_code, answer.json["type"]) == (409, "/problems/port-without-address")
        assert "Service server-1" in answer.json["detail"]
        assert made in answer.json["detail"]
        assert "Retry-After" not in answer.headers

    service["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    assert hosts(client) == {"primary": "192.0.2.1", "rcon": "192.0.2.1"}


def test_a_host_is_of_the_address_family_of_its_own_service(client: Client, world: World) -> None:
    """Nothing answers at a node's address of another one."""
    client.post(URL, SIZES)
    service = world.services["server-1"]
    for families, host in ((["IPv4"], NODE), (["IPv6"], "2001:db8::7")):
        service["spec"]["ipFamilies"] = families
        assert hosts(client) == {"primary": host, "rcon": host}
    service["spec"]["type"] = "LoadBalancer"
    service["status"] = {"loadBalancer": {"ingress": [{"ip": "2001:db8::1"}, {"ip": "2001:db8::7"}]}}
    assert hosts(client)["primary"] == "2001:db8::7"


@pytest.mark.parametrize("type_", ["NodePort", "LoadBalancer", "ClusterIP"])
def test_a_servers_own_host_name_wins(make_app: Any, world: World, type_: str) -> None:
    """It wins for every type of Service, except that RCON inside the cluster uses the Service's name."""
    client = Client(make_app(external_host="play.example").test_client())
    client.post(URL, SIZES)
    service = world.services["server-1"]
    service["spec"]["type"] = type_
    service["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    service["metadata"]["annotations"] = {
        "external-dns.alpha.kubernetes.io/hostname": "one.example.com",
        "mc-router.itzg.me/externalServerName": "one.example.com",
    }
    rcon = "server-1.gameservers.svc" if type_ == "ClusterIP" else "one.example.com"
    assert hosts(client) == {"primary": "one.example.com", "rcon": rcon}
