"""Addresses are read from Services."""

from __future__ import annotations

from typing import Any

import pytest

from service.servers.addresses import Address, address_in, address_of


def service(type_: str, *ports: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "server-1", "namespace": "games"},
        "spec": {"type": type_, "ports": list(ports)},
        "status": {"loadBalancer": status},
    }


def named(service: dict[str, Any], **names: str) -> dict[str, Any]:
    keys = {"DNS": "external-dns.alpha.kubernetes.io/hostname", "ROUTER": "mc-router.itzg.me/externalServerName"}
    annotations = {keys[key]: name for key, name in names.items()}
    return {**service, "metadata": {**service["metadata"], "annotations": annotations}}


TCP = {"name": "primary", "port": 25565, "protocol": "TCP", "nodePort": 31000}
UDP = {"name": "primary-udp", "port": 25565, "protocol": "UDP", "nodePort": 31000}


@pytest.mark.parametrize(
    ("service_object", "expected"),
    [
        (service("NodePort", TCP), Address(31000, "TCP", None)),
        (service("NodePort", TCP, UDP), Address(31000, "both", None)),
        (service("NodePort", {**TCP, "protocol": "UDP"}), Address(31000, "UDP", None)),
        # Two numbers, as Kubernetes assigns them if somebody adds a protocol by hand.
        (service("NodePort", {**TCP, "nodePort": 31001}, UDP), Address(31001, "TCP", None)),
        (service("NodePort", {**TCP, "nodePort": None}), None),
        (service("ClusterIP", TCP), Address(25565, "TCP", "server-1.games.svc")),
        (service("LoadBalancer", TCP, ingress=[{"ip": "192.0.2.1"}]), Address(25565, "TCP", "192.0.2.1")),
        (service("LoadBalancer", TCP, ingress=[{"hostname": "lb.example"}]), Address(25565, "TCP", "lb.example")),
        (service("LoadBalancer", TCP), Address(25565, "TCP", None, pending=True)),
        (service("NodePort", {**TCP, "name": "rcon"}), None),
        (named(service("NodePort", TCP), DNS="a.example, b.example"), Address(31000, "TCP", "a.example")),
        # mc-router listens on a port of its own, not on the node port.
        (named(service("NodePort", TCP), ROUTER="r.example"), Address(31000, "TCP", None)),
        (named(service("ClusterIP", TCP), ROUTER="r.example"), Address(25565, "TCP", "r.example")),
        # mc-router accepts several names too, also one in each line.
        (named(service("ClusterIP", TCP), ROUTER="r.example, s.example"), Address(25565, "TCP", "r.example")),
        (named(service("ClusterIP", TCP), ROUTER="\nr.example\ns.example"), Address(25565, "TCP", "r.example")),
        (named(service("ClusterIP", TCP), ROUTER=" , "), Address(25565, "TCP", "server-1.games.svc")),
        (named(service("LoadBalancer", TCP), DNS="a.example"), Address(25565, "TCP", None, pending=True)),
        (
            service("LoadBalancer", TCP, ingress=[{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]),
            Address(25565, "TCP", "192.0.2.1", ("192.0.2.2",)),
        ),
        (
            named(service("LoadBalancer", TCP, ingress=[{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]), DNS="a.example"),
            Address(25565, "TCP", "a.example"),
        ),
    ],
)
def test_address_of_the_primary_port(service_object: dict[str, Any], expected: Address | None) -> None:
    """For every type of Service, also one without an address yet."""
    assert address_of("primary", service_object) == expected


def test_private_rcon_has_a_service_of_its_own() -> None:
    """Its address is that Service's name and port."""
    private = {
        "metadata": {"name": "server-1-rcon", "namespace": "games"},
        "spec": {"type": "ClusterIP", "ports": [{"name": "rcon", "port": 25575}]},
    }
    services = {"server-1": service("NodePort", TCP), "server-1-rcon": private}
    assert address_in("rcon", 1, services) == Address(25575, "TCP", "server-1-rcon.games.svc")


@pytest.mark.parametrize("type_", ["NodePort", "LoadBalancer"])
def test_a_port_answers_at_addresses_of_its_services_families(type_: str) -> None:
    """Files answer at the first family only, because their agents publish one address of their pod."""
    dual = service(type_, TCP, {**TCP, "name": "sftp"}, ingress=[{"ip": "2001:db8::1"}, {"ip": "192.0.2.1"}])
    dual["spec"]["ipFamilies"] = ["IPv6", "IPv4"]
    addresses = address_of("primary", dual), address_of("sftp", dual)
    assert [address and address.families for address in addresses] == [("IPv6", "IPv4"), ("IPv6",)]
