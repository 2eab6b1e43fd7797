"""Reads from a Service the address that players connect to. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.servers.names import PortName, services_with

# Annotations with a public name: external-dns publishes it in the DNS, mc-router routes its connections.
_DNS_NAME, _ROUTER_NAME = "external-dns.alpha.kubernetes.io/hostname", "mc-router.itzg.me/externalServerName"


@dataclass(frozen=True)
class Address:
    """An address.

    Attributes:
        port: The port.
        protocol: TCP, UDP or both.
        host: A name or an IP address; None for a node port, whose node the Service does not name.
        others: The other addresses of a load balancer that has several and no name, such as k3s' ServiceLB, which gives
            the sorted addresses of all nodes: https://docs.k3s.io/networking/networking-services#service-load-balancer
        families: The families of a node's addresses at which the port answers, the Service's first one first.
        pending: Whether the port is one of a load balancer that has no address yet.
    """

    port: int
    protocol: str
    host: str | None
    others: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    pending: bool = False


def address_of(port_name: PortName, service: Mapping[str, Any]) -> Address | None:
    """Where the port can be reached; None if this Service does not have it, or has no number for it yet."""
    spec = service.get("spec", {})
    # Kubernetes needs two ports for both protocols: "primary" and "primary-udp".
    ports = [port for port in spec.get("ports", []) if port.get("name") in (port_name, f"{port_name}-udp")]
    if not ports:
        return None
    type_, metadata = spec.get("type", "ClusterIP"), service["metadata"]
    annotations = metadata.get("annotations") or {}
    name = _first_name(annotations.get(_DNS_NAME))
    # With two node ports, as a Service has that an operator changed by hand, no number is one of both protocols.
    shown = [port for port in ports if type_ != "NodePort" or port.get("nodePort") == ports[0].get("nodePort")]
    protocols = sorted({str(port.get("protocol", "TCP")) for port in shown})
    protocol = protocols[0] if len(protocols) == 1 else "both"
    # The agents lead a Service to their pod's first address only, which is of the cluster's first family.
    families = tuple(spec.get("ipFamilies") or ())[: 1 if port_name == "sftp" else None]
    if type_ == "NodePort":
        node_port = ports[0].get("nodePort")
        return Address(int(node_port), protocol, name, families=families) if node_port else None
    port = int(ports[0]["port"])
    if type_ == "LoadBalancer":
        ingresses = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
        hosts = [ingress.get("hostname") or ingress.get("ip") for ingress in ingresses]
        if not hosts:
            return Address(port, protocol, None, pending=True)
        return Address(port, protocol, name) if name else Address(port, protocol, hosts[0], tuple(hosts[1:]), families)
    if port_name == "primary" and (routed := _first_name(annotations.get(_ROUTER_NAME)) or name):
        return Address(port, protocol, routed)
    return Address(port, protocol, f"{metadata['name']}.{metadata['namespace']}.svc")


def address_in(port_name: PortName, id: int, services: Mapping[str, Mapping[str, Any]]) -> Address | None:
    """The same from all Services of a server, given by name."""
    for name in services_with(port_name, id):
        if name in services and (address := address_of(port_name, services[name])):
            return address
    return None


def _first_name(text: str | None) -> str | None:
    """The first of several names, which external-dns separates by commas, and mc-router by commas or line breaks."""
    return next(filter(None, (name.strip() for name in re.split(r"[,\n]", text or ""))), None)
