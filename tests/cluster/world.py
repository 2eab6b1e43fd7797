"""A Minecraft world as a player and its console see it."""

import json
import math
import subprocess
from typing import Any

from local.paths import ROOT
from service.console import rcon
from tests.cluster.conftest import Cluster

MARK = "gold_block"


def join(cluster: Cluster, server: int, *arguments: str) -> dict[str, Any]:
    """What a real Minecraft client sees when it joins at the port that the API gives. See tests/clients/join.js."""
    port = cluster.done("PATCH", f"/api/v1/server/{server}/port/primary")
    client = ROOT / "tests" / "clients" / "join.js"
    result = subprocess.run(
        ["node", str(client), port["host"], str(port["port"]), "visitor", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    seen: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return seen


def console(cluster: Cluster, server: int, line: str) -> str:
    """The answer of the server's remote console to a command."""
    access = cluster.done("GET", f"/api/v1/server/{server}/rcon")
    return rcon.command(access["host"], access["port"], access["password"], line)


def mark(cluster: Cluster, server: int) -> str:
    """Put a block of gold where players start, check that a player sees it, and return its place as `x,y,z`."""
    seen = join(cluster, server)
    assert seen["joined"] is True
    x, y, z = (math.floor(part) for part in seen["position"])
    place = f"{x},{y + 5},{z}"
    console(cluster, server, f"setblock {place.replace(',', ' ')} minecraft:{MARK}")
    assert block(cluster, server, place) == MARK
    return place


def block(cluster: Cluster, server: int, place: str) -> str:
    """The block that a player sees at `x,y,z`."""
    seen: str = join(cluster, server, "--look", place)["blocks"][place]
    return seen
