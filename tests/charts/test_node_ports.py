"""Two protocols of one port share a node port, also if the second comes later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.charts.rendering import chart_that_finds, render

_LOOKUP = 'lookup "v1" "Service" $.Release.Namespace (include "gameserver.fullname" $)'
TCP = {"name": "primary", "port": 30000, "protocol": "TCP", "nodePort": 21200}
UDP = {**TCP, "protocol": "UDP", "nodePort": 20183}


def node_ports(folder: Path, ports: list[dict[str, Any]], existing: list[dict[str, Any]], **service: Any) -> list[Any]:
    """The node ports that the chart names, in the order of the Service's ports without RCON's."""
    chart = chart_that_finds(_LOOKUP, "service.yaml", folder)
    values = {"ports": ports, "existing": {"spec": {"ports": existing}}, "service": service}
    rendered = render("gameserver", values, folder=chart)["Service/server-4711"]["spec"]["ports"]
    return [port.get("nodePort") for port in rendered if port["name"] != "rcon"]


@pytest.mark.parametrize(
    ("existing", "named"),
    [
        ([UDP], [20183, 20183]),
        ([TCP], [21200, 21200]),
        ([TCP, {**TCP, "name": "primary-udp", "protocol": "UDP"}], [21200, 21200]),
        # Numbers that differ already stay.
        ([TCP, {**UDP, "name": "primary-udp"}], [21200, 20183]),
        # Other ports: Kubernetes assigns both numbers together.
        ([{**UDP, "port": 30001}], [None, None]),
        ([{**UDP, "name": "query"}], [None, None]),
        ([], [None, None]),
        ([{**UDP, "nodePort": None}], [None, None]),
    ],
)
def test_a_port_with_two_protocols_keeps_its_node_port(
    tmp_path: Path, existing: list[dict[str, Any]], named: list[int | None]
) -> None:
    """Kubernetes assigns another to the second protocol, unless every revision names it."""
    both = [{"name": "primary", "port": 30000, "protocol": "both"}]
    assert node_ports(tmp_path, both, existing) == named


def test_other_services_name_no_node_port(tmp_path: Path) -> None:
    """A port of one protocol is Kubernetes' matter, and a load balancer has the game's own port."""
    assert node_ports(tmp_path / "1", [{"name": "primary", "port": 30000, "protocol": "TCP"}], [UDP]) == [None]
    both = [{"name": "primary", "port": 30000, "protocol": "both"}]
    assert node_ports(tmp_path / "2", both, [UDP], type="LoadBalancer") == [None, None]
