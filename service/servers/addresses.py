"""From a Service to the address that a customer connects to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.servers.names import PortName, services_with

# The names under which others make a server known: external-dns in the DNS, mc-router at its own door.
_DNS_NAME, _ROUTER_NAME = "external-dns.alpha.kubernetes.io/hostname", "mc-router.itzg.me/externalServerName"


@dataclass(frozen=True)
class Address:
    """`host` is None where the port is a node's, which the Service does not name; `protocol` is TCP, UDP or both."""

    port: int
    protocol: str
    host: str | None


def address_of(port_name: PortName, service: Mapping[str, Any]) -> Address | None:
    """Where the port is reached, or None where this Service does not have it (or not yet)."""
    spec = service.get("spec", {})
    # A port of both protocols is two in Kubernetes: "primary" and "primary-udp".
    found = [port for port in spec.get("ports", []) if port.get("name") in (port_name, f"{port_name}-udp")]
    if not found:
        return None
    protocols = sorted({str(port.get("protocol", "TCP")) for port in found})
    protocol = protocols[0] if len(protocols) == 1 else "both"
    type_, metadata = spec.get("type", "ClusterIP"), service["metadata"]
    annotations = metadata.get("annotations") or {}
    # external-dns takes several names, with commas between them.
    name = str(annotations.get(_DNS_NAME) or "").partition(",")[0].strip() or None
    if type_ == "NodePort":
        node_port = found[0].get("nodePort")
        return Address(int(node_port), protocol, name) if node_port else None
    port = int(found[0]["port"])
    if type_ == "LoadBalancer":
        for ingress in service.get("status", {}).get("loadBalancer", {}).get("ingress") or []:
            return Address(port, protocol, name or ingress.get("hostname") or ingress.get("ip"))
        return None
    if port_name == "primary" and (routed := annotations.get(_ROUTER_NAME) or name):
        return Address(port, protocol, routed)
    return Address(port, protocol, f"{metadata['name']}.{metadata['namespace']}.svc")


def address_in(port_name: PortName, id: int, services: Mapping[str, Mapping[str, Any]]) -> Address | None:
    """The same, out of all Services of a server."""
    for name in services_with(port_name, id):
        if name in services and (address := address_of(port_name, services[name])):
            return address
    return None
