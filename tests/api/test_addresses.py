"""Where a server is reached: per port, in every call, the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Client
from tests.support.fakes import World

OK = {"ram_gb": 2, "disk_gb": 10}
URL = "/api/v1/server/1/"
NODE = "203.0.113.7"


def hosts(client: Client) -> dict[str, Any]:
    """The host of each port, which the single server, the list and the port calls agree on."""
    one: Any = client.get(URL).json
    (listed,) = client.get("/api/v1/server/").json["servers"]  # type: ignore[index]
    assert listed == {key: value for key, value in one.items() if key != "success"}
    found = {kind: port["host"] for kind, port in one["ports"].items()}
    for kind, port in one["ports"].items():
        for method in ("PATCH", "GET"):
            assert client.call(method, f"{URL}port/{kind}").json == {"success": True, **port}
    assert one["host"] == found.get("primary")
    return found


def test_each_port_has_a_host_of_its_own(client: Client) -> None:
    """A private RCON is reached inside the cluster, the game at its node."""
    client.post(URL, {**OK, "rcon": "private"})
    assert hosts(client) == {"primary": NODE, "rcon": "server-1-rcon.gameservers.svc"}


def test_there_is_no_host_before_the_disk_has_a_node(client: Client, world: World) -> None:
    """The port is known all the same."""
    client.post(URL, {**OK, "start": False})
    world.claims[1]["status"]["phase"] = "Pending"
    assert hosts(client) == {"primary": None, "rcon": None}
    rcon: Any = client.get(f"{URL}rcon").json
    assert (rcon["host"], rcon["port"]) == (None, 31002)
    world.claims[1]["status"]["phase"] = "Bound"
    assert hosts(client) == {"primary": NODE, "rcon": NODE}


def test_the_operators_host_stands_for_all_nodes(make_app: Any, world: World) -> None:
    """Known at once; and each node answers, unless the operator has said otherwise."""
    client = Client(make_app(external_host="play.example").test_client())
    client.post(URL, {**OK, "start": False})
    world.claims[1]["status"]["phase"] = "Pending"
    assert hosts(client) == {"primary": "play.example", "rcon": "play.example"}
    assert world.values[1]["service"] == {"externalTrafficPolicy": "Cluster"}


def test_a_server_from_before_the_operators_host_takes_it_with_its_next_start(make_app: Any, world: World) -> None:
    """A call that changes nothing leaves it as it is."""
    before = Client(make_app().test_client())
    before.post(URL, OK)
    assert "service" not in world.values[1]
    client = Client(make_app(external_host="play.example").test_client())
    client.patch(f"{URL}start")
    assert "service" not in world.values[1]
    client.patch(f"{URL}restart")
    assert world.values[1]["service"] == {"externalTrafficPolicy": "Cluster"}


def test_what_the_operator_said_about_the_policy_holds(make_app: Any, world: World, tmp_path: Any) -> None:
    """His address may lead to the right node by itself."""
    path = tmp_path / "server-values.yaml"
    path.write_text("all: {service: {externalTrafficPolicy: Local}}\n")
    client = Client(make_app(external_host="play.example", server_values_file=path).test_client())
    client.post(URL, OK)
    assert world.values[1]["service"] == {"externalTrafficPolicy": "Local"}


@pytest.mark.parametrize("type_", ["NodePort", "LoadBalancer", "ClusterIP"])
def test_a_servers_own_name_goes_before_all_addresses(make_app: Any, world: World, type_: str) -> None:
    """Whatever the type of its Service; RCON within the cluster is reached by the Service's name."""
    client = Client(make_app(external_host="play.example").test_client())
    client.post(URL, OK)
    service = world.services["server-1"]
    service["spec"]["type"] = type_
    service["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    service["metadata"]["annotations"] = {
        "external-dns.alpha.kubernetes.io/hostname": "one.example.com",
        "mc-router.itzg.me/externalServerName": "one.example.com",
    }
    rcon = "server-1.gameservers.svc" if type_ == "ClusterIP" else "one.example.com"
    assert hosts(client) == {"primary": "one.example.com", "rcon": rcon}
