"""The nodes: each one a set of namespaces on a bridge, and a record of whose they are.

Nothing of a node outlives its process 1 but the bridge, its cgroups and this record, and those
are taken over or removed by the next `up` or `down`, from whichever checkout.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from local import node_init, paths, steps

MOST = 3
"""How many nodes there can be."""
BRIDGE = "gameserver0"
HOST_ADDRESS = "10.77.0.1"
#: As kubeadm-init.yaml has it.
SERVICES = "10.96.0.0/16"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CGROUPS = Path("/sys/fs/cgroup")
_LINKS = Path("/sys/class/net")
_BLOCK_DEVICES = Path("/sys/block")


@dataclass(frozen=True)
class Node:
    """One node; `number` counts from 1, and node 1 has the control plane."""

    number: int

    @property
    def name(self) -> str:
        """Its name in Kubernetes."""
        return f"node{self.number}"

    @property
    def address(self) -> str:
        """Its address on the bridge."""
        return f"10.77.0.{self.number + 1}"

    @property
    def pod_range(self) -> str:
        """The addresses of its pods."""
        return f"10.78.{self.number}.0/24"

    @property
    def folder(self) -> Path:
        """Its data in this checkout."""
        return paths.NODES / self.name

    @property
    def cgroup(self) -> str:
        """Its root cgroup, in every controller."""
        return f"/gameserver-{self.name}"


def started_at(pid: int) -> str | None:
    """When process `pid` started, in the kernel's ticks; None when there is none or it is dead.

    A pid alone may name another process by now; with this it cannot.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def owner() -> dict[str, object] | None:
    """The record of the machine's local cluster: `{"checkout": path, "nodes": {number: …}}`."""
    try:
        record: dict[str, object] = json.loads(paths.OWNER.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return record


def running() -> dict[int, int]:
    """The nodes whose process 1 is alive, of whichever checkout: number → its pid out here."""
    record = owner()
    nodes = record["nodes"] if record else {}
    assert isinstance(nodes, dict)
    return {int(number): node["pid"] for number, node in nodes.items() if started_at(node["pid"]) == node["started"]}


def refuse_another_checkouts() -> None:
    """Stop with a message when a live cluster belongs to another checkout.

    Raises:
        StepFailed: names that checkout and how its cluster is stopped.
    """
    record = owner()
    if record and record["checkout"] != str(paths.ROOT) and running():
        raise steps.StepFailed(
            f"the local cluster of {record['checkout']} is up on this machine, and there is room "
            f"for one; stop it first: make -C {shlex.quote(str(record['checkout']))} stop"
        )


def refuse_unified_cgroups() -> None:
    """Raises StepFailed on a machine with cgroup v2 alone, on which the nodes' kubelets would not start."""
    if (_CGROUPS / "cgroup.controllers").exists():
        raise steps.StepFailed(
            "the local cluster needs cgroup v1, and this machine has v2 alone: boot it with the kernel's parameters\n"
            "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller, or use a cluster of your own "
            "(CLUSTER=current, see README.md)"
        )


def reach_directly() -> None:
    """Keep a proxy that this process's environment names out of the way to the nodes.

    Python's clients know no ranges of addresses there, so each node is named.
    """
    own = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    addresses = [Node(number).address for number in range(1, MOST + 1)]
    text = ",".join(dict.fromkeys([*filter(None, own.split(",")), *addresses]))
    os.environ |= {"no_proxy": text, "NO_PROXY": text}


def environment(*tools: Path) -> dict[str, str]:
    """The environment of all that runs in a node, with the folders `tools` on its PATH.

    It has nothing from the shell's: a shell that has sourced .local/env has the API's token and a kubeconfig in it.
    """
    return {"PATH": ":".join([*map(str, tools), _PATH])}


def enter(node: Node, command: Sequence[object], *tools: Path) -> list[str]:
    """`command`, as it is run inside the node, in `environment(*tools)`."""
    pid = running().get(node.number)
    if pid is None:
        raise steps.StepFailed(f"{node.name} is not running")
    own = [f"{name}={value}" for name, value in environment(*tools).items()]
    return ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "--", "env", "-i", *own, *map(str, command)]


def start(node: Node, binaries: Path) -> None:
    """Bring the node's namespaces, network and containerd up; does nothing when it runs.

    Raises:
        StepFailed: it died or its containerd did not answer; shows the tail of its log.
    """
    if node.number in running():
        return
    _remove_cgroups(node)
    _ensure_bridge()
    node.folder.mkdir(parents=True, exist_ok=True)
    (node.folder / "prepared").unlink(missing_ok=True)
    _write_containerd_config(node)
    config = node.folder / "node.json"
    config.write_text(
        json.dumps(
            {
                "name": node.name,
                "folder": str(node.folder),
                "bin": str(binaries),
                "cgroup": node.cgroup,
            }
        )
    )
    with (node.folder / "node.log").open("ab") as log:
        outer = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
            + ["--mount-proc", "--propagation", "private", "--"]
            + [sys.executable, str(paths.ROOT / "local" / "node_init.py"), str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment(),
            umask=0o022,
        )
    _wait(node, lambda: (node.folder / "prepared").exists(), outer, "its namespaces")
    pid = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
    _record(node, pid)
    _connect(node, pid)
    socket = Path(f"/proc/{pid}/root/run/containerd/containerd.sock")
    _wait(node, socket.exists, outer, "containerd")


def ensure_pool(node: Node) -> None:
    """Mount the pool of disks in the running node, if an earlier commit has started it without one."""
    command = [sys.executable, paths.ROOT / "local" / "node_init.py", node.folder / "node.json", "pool"]
    steps.output(enter(node, command))


def route(nodes: Sequence[Node]) -> None:
    """Give each node a route to the other nodes' pods."""
    for node in nodes:
        for other in nodes:
            if other != node:
                steps.output(enter(node, ["ip", "route", "replace", other.pod_range, "via", other.address]))


def stop() -> None:
    """End every node of this checkout, live or dead, and what it left on the machine.

    The games get a SIGTERM and a minute to save their worlds; the data stays.
    """
    pids = running()
    for pid in pids.values():
        os.kill(pid, signal.SIGTERM)
    _gone(pids, seconds=90)
    for number, pid in running().items():
        if pids.get(number) == pid:
            os.kill(pid, signal.SIGKILL)
    _gone(pids, seconds=20)
    for group in _CGROUPS.glob("*/gameserver-node*"):
        _remove_cgroup(group)
    # The kernel writes what is left to the pools and unmounts them after the last process of a node.
    deadline = time.monotonic() + 20
    while loop_devices() and time.monotonic() < deadline:
        time.sleep(0.1)
    # The kernel may keep a dead node's network for a minute and more, and with it the link out here.
    for link in (BRIDGE, *(path.name for path in _LINKS.glob("gs-node*"))):
        _remove_link(link)
    paths.OWNER.unlink(missing_ok=True)
    if paths.OWNER.parent.exists():
        paths.OWNER.parent.rmdir()


def loop_devices() -> list[str]:
    """The loop devices of the nodes' pools and of the disks in them, as in `loop0`."""
    pools = [f"{paths.NODES.resolve()}/", f"{node_init.POOL}/"]
    devices = []
    for device in sorted(_BLOCK_DEVICES.glob("loop*")):
        # It may be detached meanwhile.
        with contextlib.suppress(OSError):
            if (device / "loop" / "backing_file").read_text().startswith(tuple(pools)):
                devices.append(device.name)
    return devices


def _gone(pids: dict[int, int], seconds: int) -> None:
    deadline = time.monotonic() + seconds
    while set(running().values()) & set(pids.values()) and time.monotonic() < deadline:
        time.sleep(0.2)


def _record(node: Node, pid: int) -> None:
    record = owner()
    nodes: dict[str, object] = {}
    if record and record["checkout"] == str(paths.ROOT):
        nodes = dict(record["nodes"])  # type: ignore[call-overload]
    nodes[str(node.number)] = {"pid": pid, "started": started_at(pid)}
    paths.OWNER.parent.mkdir(parents=True, exist_ok=True)
    unfinished = paths.OWNER.with_suffix(".new")
    unfinished.write_text(json.dumps({"checkout": str(paths.ROOT), "nodes": nodes}))
    unfinished.rename(paths.OWNER)


def _ensure_bridge() -> None:
    if not (_LINKS / BRIDGE).exists():
        steps.output(["ip", "link", "add", BRIDGE, "type", "bridge"])
    steps.output(["ip", "address", "replace", f"{HOST_ADDRESS}/24", "dev", BRIDGE])
    steps.output(["ip", "link", "set", BRIDGE, "up"])


def _remove_link(name: str) -> None:
    # The kernel may remove it, with a node's network, at any moment.
    subprocess.run(["ip", "link", "delete", name], stderr=subprocess.DEVNULL)
    if (_LINKS / name).exists():
        raise steps.StepFailed(f"the network link {name} cannot be removed; try: ip link delete {name}")


def _connect(node: Node, pid: int) -> None:
    outside = f"gs-{node.name}"
    _remove_link(outside)
    steps.output(["ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", str(pid)])
    steps.output(["ip", "link", "set", outside, "master", BRIDGE, "up"])
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "replace", f"{node.address}/24", "dev", "eth0"],
        ["ip", "link", "set", "eth0", "up"],
        ["ip", "route", "replace", "default", "via", HOST_ADDRESS],
        # Who asks for a Service before kube-proxy knows it is told so at once, and tries again. Otherwise the packet
        # would leave the node, and the kernel keep to that way until the asker gives up, half a minute later.
        *(["iptables", "-w", "-A", chain, "-d", SERVICES, "-j", "REJECT"] for chain in ("FORWARD", "OUTPUT")),
    ):
        steps.output(enter(node, command))


def _write_containerd_config(node: Node) -> None:
    template = (paths.ROOT / "local" / "manifests" / "containerd.toml").read_text()
    (node.folder / "containerd.toml").write_text(template)
    network = node.folder / "etc" / "cni" / "net.d"
    network.mkdir(parents=True, exist_ok=True)
    # Each pod has a link of its own (ptp), and with it goes all that the kernel knows of the pod's address. On a bridge
    # the next pod of that address, 253 pods later, was not reached for eight seconds: packets went to the dead link.
    conflist = (paths.ROOT / "local" / "manifests" / "cni.conflist").read_text()
    (network / "10-pods.conflist").write_text(conflist.replace("POD_RANGE", node.pod_range))


def _wait(node: Node, ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        log = node.folder / "node.log"
        if process.poll() is not None or time.monotonic() > deadline:
            raise steps.StepFailed(f"{node.name}: {what} did not come up; its log is {log}:\n{steps.tail(log)}")
        time.sleep(0.1)


def _remove_cgroups(node: Node) -> None:
    for group in _CGROUPS.glob(f"*{node.cgroup}"):
        _remove_cgroup(group)


def _remove_cgroup(group: Path) -> None:
    """End what a dead run left in the cgroup (by process id), then remove it, leaves first."""
    folders = sorted([group, *(path for path in group.rglob("*") if path.is_dir())], reverse=True)
    for folder in folders:
        for _ in range(50):
            pids = [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
            if not pids:
                break
            for pid in pids:
                if pid > 0:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        for _ in range(50):
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.1)
