"""The heap rule at the limit: a JVM with a heap of that size fits, and one with a larger heap does not."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from local.paths import ROOT
from service.games import catalogue
from service.servers import values
from service.servers.spec import ServerSpec
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster

RAM_GB = 2
#: What a JVM needs besides its heap, in MiB, for a Minecraft server of this size: classes, compiled code, the stacks of
#: 60 threads and Netty's direct buffers. The tables of the garbage collector G1 take 8 % of the heap.
#: Source: https://docs.oracle.com/en/java/javase/17/vm/native-memory-tracking.html.
BESIDE = {"metaspace": 120, "code": 64, "threads": 40, "direct": 64}
COLLECTOR = 0.08
#: A program that uses memory like a JVM: it fills a heap of the size MEMORY and all the rest, and fills the page cache
#: with its world, as a save does. The kernel can drop the page cache.
PROGRAM = f"""
const fs = require('fs')
const heap = parseInt(process.env.MEMORY)
const kept = []
const fill = mib => {{ for (; mib > 0; mib -= 16) kept.push(Buffer.alloc(Math.min(mib, 16) * 2 ** 20, 1)) }}
fill(heap)
const world = fs.openSync('/data/world', 'w')
for (let i = 0; i < 32; i++) fs.writeSync(world, kept[i])
for (const mib of {json.dumps(list(BESIDE.values()))}) fill(mib)
fill(Math.round(heap * {COLLECTOR}))
fs.writeFileSync('/tmp/filled', '')
setInterval(() => kept.length, 60000)
"""


def _install(cluster: Cluster, server: int, **more: Any) -> None:
    """Install Minecraft's own values, with that program as the game."""
    printed = cluster.run("helm", "get", "values", "api", "-n", "gameserver-system", "-o", "json")
    operator = {
        "image": json.loads(printed)["serverValues"]["games"]["minecraft"]["image"],
        "command": ["node", "-e", PROGRAM],
        "probe": {"command": ["test", "-e", "/tmp/filled"], "periodSeconds": 1},
        "terminationGracePeriodSeconds": 1,
        **more,
    }
    game = catalogue.load(catalogue.BUILT_IN)["minecraft"]
    spec = ServerSpec(game=game.name, ram_gb=RAM_GB, disk_gb=1)
    rendered = values.values_of(server, spec, game.render(server, spec), {"games": {game.name: operator}})
    chart = str(ROOT / "charts" / "gameserver")
    install = ["helm", "install", f"server-{server}", chart, "-n", SERVERS_NAMESPACE, "--values", "-"]
    cluster.run(*install, stdin=json.dumps(rendered))


@pytest.mark.long
def test_the_memory_besides_the_heap_is_enough(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The program uses nearly all of the limit, and is not killed."""
    server = new_server()
    _install(cluster, server)
    status = cluster.until_state(server, "running", "failed")
    assert status["state"] == "running", status["reason"]
    process = cluster.run(
        "kubectl", "-n", SERVERS_NAMESPACE, "exec", f"server-{server}-0", "--", "cat", "/proc/1/status"
    )
    used = re.search(r"^VmRSS:\s+(\d+) kB$", process, re.MULTILINE)
    assert used, process
    assert 0.93 * RAM_GB < int(used[1]) / 2**20 < RAM_GB
    [container] = cluster.get("pod", f"server-{server}-0")["status"]["containerStatuses"]
    assert (container["restartCount"], container["lastState"]) == (0, {})


@pytest.mark.long
def test_a_heap_larger_than_the_rule_allows_is_too_large(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """With half of the memory that the rule leaves free, the same program runs out of memory."""
    server = new_server()
    _install(cluster, server, extraEnv=[{"name": "MEMORY", "value": f"{RAM_GB * 1024 - 256}M"}])
    status = cluster.until_state(server, "failed", "running")
    # If it has already ended twice, the reason says so at the end.
    assert status["reason"].startswith(f"The game ran out of memory (its limit is {RAM_GB} GiB).")
