"""The network of a node's pods, by the plugin that containerd runs for each, in a node's network of the test's own."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from local import paths

# Root makes network namespaces; the plugins are Debian's.
pytestmark = pytest.mark.tools

PLUGINS = Path("/usr/lib/cni")
#: Says how long it takes until an address refuses a connection: it is there, and nothing listens.
ASK = """
import socket, sys, time
began = time.monotonic()
while time.monotonic() - began < 20:
    try:
        socket.create_connection((sys.argv[1], 9), timeout=0.2)
    except ConnectionRefusedError:
        break
    except OSError:
        continue
print(time.monotonic() - began)
"""


@contextmanager
def network(name: str) -> Iterator[str]:
    """An empty network namespace."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def node() -> Iterator[str]:
    with network(f"node-{os.getpid()}") as name:
        # As local/node_init.py has it.
        inside(name, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        yield name


def inside(name: str, *command: str, stdin: str = "", **environment: str) -> str:
    """What a command in that network prints."""
    return subprocess.run(
        ["ip", "netns", "exec", name, *command],
        input=stdin,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


@pytest.fixture
def pod(node: str, tmp_path: Path) -> Callable[[str], Any]:
    """Gives pods their network as local/manifests/cni.conflist has it, but that there are two addresses."""
    text = (paths.ROOT / "local" / "manifests" / "cni.conflist").read_text().replace("POD_RANGE", "10.78.9.0/24")
    conflist = json.loads(text)
    plugin = conflist["plugins"][0] | {name: conflist[name] for name in ("name", "cniVersion")}
    plugin["ipam"]["dataDir"] = str(tmp_path)
    plugin["ipam"]["ranges"][0][0]["rangeEnd"] = "10.78.9.3"

    @contextmanager
    def run(name: str) -> Iterator[str]:
        variables = {"CNI_CONTAINERID": name, "CNI_NETNS": f"/run/netns/{name}", "CNI_IFNAME": "eth0"}
        command = [str(PLUGINS / plugin["type"])]
        with network(name), ExitStack() as stack:
            answer = inside(
                node, *command, stdin=json.dumps(plugin), CNI_COMMAND="ADD", CNI_PATH=str(PLUGINS), **variables
            )
            stack.callback(
                inside, node, *command, stdin=json.dumps(plugin), CNI_COMMAND="DEL", CNI_PATH=str(PLUGINS), **variables
            )
            yield json.loads(answer)["ips"][0]["address"].split("/")[0]

    return run


def test_an_address_that_is_given_again_answers_at_once(node: str, pod: Callable[[str], Any]) -> None:
    """A node has 253 addresses for its pods: in a long run each comes again, with another pod's link behind it."""
    addresses, seconds = [], []
    with pod(stays := f"stays-{os.getpid()}"):
        for number in range(2):
            with pod(f"pod{number}-{os.getpid()}") as address:
                addresses.append(address)
                # From the node, as all that comes through a node port, and from another pod of the node.
                seconds += [float(inside(asking, "python3", "-c", ASK, address)) for asking in (node, stays)]
    assert addresses == ["10.78.9.3"] * 2
    assert max(seconds) < 2, seconds
