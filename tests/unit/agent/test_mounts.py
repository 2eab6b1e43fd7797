"""Disks are mounted, followed and let go, on real mounts: each test is a process with a mount namespace of its own."""

from __future__ import annotations

import errno
import functools
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from disk_agent import mounts
from disk_agent.agent import Agent
from disk_agent.mounts import Chroots, NotMounted
from disk_agent.node import Node
from disk_agent.objects import Account, Volume
from disk_agent.plan import Access
from disk_agent.reporter import measure
from disk_agent.settings import Settings
from disk_agent.usage import Use
from tests.support.waiting import until
from tests.unit.agent.test_plan import SETTINGS

pytestmark = pytest.mark.tools

DISK = "/pool/mounts/pvc-1"
Test = Callable[[Path], None]


def in_own_namespace(test: Test) -> Test:
    """Run a test as root in a new process, whose mounts end with it."""

    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        script = (
            f"import pathlib, {__name__} as tests; tests.{test.__name__}.__wrapped__(pathlib.Path({str(tmp_path)!r}))"
        )
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", script]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
        assert done.returncode == 0, done.stderr

    return run


def shell(script: str, folder: Path) -> None:
    subprocess.run(["sh", "-ec", script], cwd=folder, check=True, timeout=30)


def chroots(folder: Path) -> Chroots:
    """A node with an empty pool below `host`, and the folder of the chroots."""
    shell("mkdir -p host/pool/mounts/pvc-1 chroots", folder)
    return Chroots(folder / "chroots", folder / "host")


def mount_disk(folder: Path, text: str) -> None:
    """Mount a new file system as the disk, as the driver does on the node. It has the file `world`."""
    script = f"mount -t tmpfs -o size=4m,nosuid,nodev disk host{DISK}; printf {text} > host{DISK}/world"
    shell(script, folder)


def unmount_disk(folder: Path) -> None:
    shell(f"umount host{DISK}", folder)


def mounted(folder: Path) -> list[list[str]]:
    """The fields of each mount below a folder (proc_pid_mountinfo(5))."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [fields for line in lines if (fields := line.split())[4].startswith(str(folder))]


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except NotMounted:
        return True
    return False


@in_own_namespace
def test_a_disk_is_offered_once_the_node_has_mounted_it(tmp_path: Path) -> None:
    """Until then its folder is an empty one of the pool, or is not there at all."""
    disks = chroots(tmp_path)
    assert refused(lambda: disks.ensure("7", DISK, is_mount=True))
    assert refused(lambda: disks.ensure("7", "/pool/mounts/pvc-2", is_mount=True))
    assert disks.servers() == set()

    mount_disk(tmp_path, "one")
    for _ in range(2):
        assert disks.ensure("7", DISK, is_mount=True)
    (shown,) = mounted(tmp_path / "chroots")
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(shown[5].split(","))
    assert not any(field.startswith(("shared:", "master:")) for field in shown)
    assert (tmp_path / "chroots/server-7/files/world").read_text() == "one"


@in_own_namespace
def test_a_folder_of_a_volume_needs_no_mount(tmp_path: Path) -> None:
    """local-path's volumes are plain folders."""
    disks = chroots(tmp_path)
    (tmp_path / f"host{DISK}/world").write_text("plain")
    assert disks.ensure("7", DISK, is_mount=False)
    assert (tmp_path / "chroots/server-7/files/world").read_text() == "plain"


@in_own_namespace
def test_no_link_is_followed_to_a_disk(tmp_path: Path) -> None:
    disks = chroots(tmp_path)
    mount_disk(tmp_path, "one")
    shell("ln -s pvc-1 host/pool/mounts/pvc-2; ln -s mounts host/pool/linked", tmp_path)
    for folder in ("/pool/mounts/pvc-2", "/pool/linked/pvc-1"):
        with pytest.raises(OSError, match=os.strerror(errno.ENOTDIR)):
            disks.ensure("7", folder, is_mount=True)


@in_own_namespace
def test_a_disk_that_is_mounted_anew_replaces_the_old_one(tmp_path: Path) -> None:
    disks = chroots(tmp_path)
    mount_disk(tmp_path, "one")
    assert disks.ensure("7", DISK, is_mount=True)
    unmount_disk(tmp_path)
    mount_disk(tmp_path, "two")
    assert not disks.ensure("7", DISK, is_mount=True)
    assert (tmp_path / "chroots/server-7/files/world").read_text() == "one"
    disks.remove("7")
    assert disks.ensure("7", DISK, is_mount=True)
    assert (tmp_path / "chroots/server-7/files/world").read_text() == "two"


@in_own_namespace
def test_another_folder_of_one_file_system_is_noticed(tmp_path: Path) -> None:
    """The mount is then on the same device as the folder below it."""
    disks = chroots(tmp_path)
    assert disks.ensure("7", DISK, is_mount=False)
    shell("mkdir host/pool/other", tmp_path)
    assert not disks.ensure("7", "/pool/other", is_mount=False)


def settings(folder: Path) -> Settings:
    """The settings of an agent whose folders are in `folder`. Makes them, with an empty pool."""
    chroots(folder)
    shell("mkdir -p extrausers state/keys state/applied", folder)
    return replace(
        SETTINGS,
        host_root=str(folder / "host"),
        chroots=str(folder / "chroots"),
        extrausers=str(folder / "extrausers"),
        state=str(folder / "state"),
        volume_folders=("/pool",),
    )


def node(folder: Path) -> Node:
    return Node(settings(folder), mock.Mock())


ACCESSES = {"7": Access(Account("7", None, ()), DISK, is_mount=True)}


def apply(node: Node, accesses: dict[str, Access] = ACCESSES) -> tuple[bool, set[str]]:
    """Apply a plan; returns whether it is complete, and the servers whose sessions were ended."""
    with mock.patch("disk_agent.sshd.connections.close_all") as close_all:
        complete = node.apply(accesses, frozenset())
    return complete, close_all.call_args.args[0]


@in_own_namespace
def test_a_disk_that_is_not_mounted_gets_no_user_and_one_log_line(tmp_path: Path) -> None:
    here, lines = node(tmp_path), Lines()
    for _ in range(3):
        assert apply(here) == (True, set())
    assert (tmp_path / "extrausers/passwd").read_text() == ""
    assert lines.messages == ["disk not mounted"]
    mount_disk(tmp_path, "one")
    assert apply(here) == (True, set())
    assert (tmp_path / "extrausers/passwd").read_text().startswith("server-7:")
    assert lines.messages == ["disk not mounted", "access set"]


@in_own_namespace
def test_sessions_on_a_disk_that_is_mounted_anew_end(tmp_path: Path) -> None:
    """They would go on in the old file system, and its device would never be free."""
    here = node(tmp_path)
    mount_disk(tmp_path, "one")
    assert apply(here) == (True, set())
    unmount_disk(tmp_path)
    mount_disk(tmp_path, "two")
    assert apply(here) == (False, {"7"})
    assert mounted(tmp_path / "chroots") == []
    assert apply(here) == (True, set())
    assert (tmp_path / "chroots/server-7/files/world").read_text() == "two"


@in_own_namespace
def test_a_disk_that_is_unmounted_or_whose_claim_goes_is_let_go(tmp_path: Path) -> None:
    """Then the file system has no mount left, so its device is free."""
    here = node(tmp_path)
    mount_disk(tmp_path, "one")
    apply(here)
    unmount_disk(tmp_path)
    assert apply(here) == (True, {"7"})
    assert mounted(tmp_path) == []

    mount_disk(tmp_path, "two")
    apply(here)
    assert apply(here, {}) == (True, {"7"})
    unmount_disk(tmp_path)
    assert mounted(tmp_path) == []


@in_own_namespace
def test_each_change_of_the_nodes_mounts_is_told(tmp_path: Path) -> None:
    chroots(tmp_path)
    changes = mounts.changes()
    next(changes)
    mount_disk(tmp_path, "one")
    next(changes)
    unmount_disk(tmp_path)
    next(changes)


class FakeKube:
    """One server with an account, whose disk is on this node."""

    def request(self, method: str, path: str, body: Any = None, content_type: str = "") -> Any:
        metadata = {"name": "server-7", "uid": "u", "resourceVersion": "1", "labels": {"gameserver/id": "7"}}
        term = {"matchExpressions": [{"key": "disk-driver.gameserver/node", "operator": "In", "values": ["one"]}]}
        volume = {
            "csi": {"driver": "disk-driver.gameserver", "volumeAttributes": {"folder": DISK}},
            "claimRef": {"namespace": "gameservers", "name": "server-7"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        }
        items: dict[str, dict[str, Any]] = {
            "secrets": {"metadata": metadata},
            "persistentvolumeclaims": {
                "metadata": metadata,
                "spec": {"volumeName": "pv"},
                "status": {"phase": "Bound"},
            },
            "persistentvolumes": {"metadata": {**metadata, "name": "pv"}, "spec": volume},
            "services": {"metadata": {**metadata, "name": "server-7-sftp"}},
        }
        kind = path.split("?")[0].rpartition("/")[2]
        return {"metadata": metadata, "items": [items[kind]] if kind in items else []}

    def stream(self, path: str, seconds: int) -> Iterator[dict[str, Any]]:
        threading.Event().wait()
        yield {}


@in_own_namespace
def test_the_agent_follows_the_nodes_mounts(tmp_path: Path) -> None:
    """Without any change in Kubernetes. It is ready although a disk is not mounted."""
    agent = Agent(FakeKube(), settings(tmp_path), tmp_path / "log")  # type: ignore[arg-type]
    # The real ones would act on the sshd processes of this machine's own cluster.
    limiter = mock.patch("disk_agent.sshd.limiter.ConnectionLimiter.start")
    with limiter, mock.patch("disk_agent.sshd.connections.close_all"):
        threading.Thread(target=agent.run, daemon=True).start()
        until((tmp_path / "state/synced").exists, 10, "the agent is ready")
        assert mounted(tmp_path / "chroots") == []
        mount_disk(tmp_path, "one")
        until(lambda: mounted(tmp_path / "chroots"), 10, "the disk is shown")
        until((tmp_path / "state/applied/7").exists, 10, "the access is recorded")
        unmount_disk(tmp_path)
        until(lambda: not mounted(tmp_path / "chroots"), 10, "the disk is let go")


AGENT = """
mount --rbind node/pool container/pool; mount --make-rslave container/pool; mount -o remount,bind,ro container/pool
mount --rbind node/pool/mounts container/mounts; mount --make-rslave container/mounts
exec "$@"
"""
FOLLOW = """
from pathlib import Path
from disk_agent.mounts import NotMounted, changes, open_disk
for _ in changes():
    seen = []
    for folder in ("pool/mounts/pvc-1", "mounts/pvc-1"):
        try:
            open_disk(Path("container"), folder, is_mount=True)
            seen.append(folder)
        except NotMounted:
            pass
    print(seen, flush=True)
    if seen:
        break
"""


@in_own_namespace
def test_a_pool_that_is_mounted_after_the_agents_start_is_seen(tmp_path: Path) -> None:
    """If the pod mounts the pool's folder. A folder inside of it would stay the one below the pool's mount."""
    shell("mkdir node container; mount -t tmpfs node node; mount --make-shared node", tmp_path)
    shell("mkdir -p node/pool/mounts container/pool container/mounts", tmp_path)
    pod = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", AGENT, "agent", sys.executable, "-c", FOLLOW]
    with subprocess.Popen(pod, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout
        assert agent.stdout.readline() == "[]\n"
        shell("mount -t tmpfs pool node/pool; mkdir -p node/pool/mounts/pvc-1", tmp_path)
        shell("mount -t tmpfs disk node/pool/mounts/pvc-1", tmp_path)
        assert agent.stdout.read().splitlines()[-1] == "['pool/mounts/pvc-1']"


@in_own_namespace
def test_a_full_ext4_disk_is_full_and_one_with_room_is_not(tmp_path: Path) -> None:
    """As the driver makes it: no blocks for root. What is left then are blocks that ext4 keeps for itself."""
    chroots(tmp_path)
    shell(f"truncate -s 64M image; mkfs.ext4 -q -m 0 image; mount -o loop image host{DISK}", tmp_path)
    volume = Volume("pv", "one", DISK, "gameservers/server-7", is_mount=True)
    empty = measure(tmp_path / "host", volume)
    assert empty is not None
    assert not empty.full
    shell(f"cp /dev/zero host{DISK}/world 2>/dev/null || true; sync -f host{DISK}", tmp_path)
    filled = measure(tmp_path / "host", volume)
    assert filled is not None
    assert filled.full
    assert filled.used > 0.95 * filled.size
    shell(f"rm host{DISK}/world; sync -f host{DISK}", tmp_path)
    assert measure(tmp_path / "host", volume) == empty
    unmount_disk(tmp_path)


@in_own_namespace
def test_only_a_file_system_of_its_own_has_a_use(tmp_path: Path) -> None:
    """A plain folder has the node's file system, which says nothing about one disk."""
    chroots(tmp_path)
    plain = Volume("pv", "one", DISK, "gameservers/server-7")
    assert measure(tmp_path / "host", plain) is None
    assert refused(lambda: measure(tmp_path / "host", replace(plain, is_mount=True)))
    mount_disk(tmp_path, "one")
    for volume in (plain, replace(plain, is_mount=True)):
        assert measure(tmp_path / "host", volume) == Use(4096, 4 << 20, full=False)


class Lines(logging.Handler):
    """What the agent logs."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        logger = logging.getLogger("disk_agent")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: Any) -> None:
        self.messages.append(record.getMessage())
