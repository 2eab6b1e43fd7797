"""A node's pool of disks: a file system in a file of its data, mounted in its own namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from local import paths
from tests.support.waiting import until

# Root mounts; XFS comes with the kernel, and mkfs.xfs with Debian.
pytestmark = pytest.mark.tools

#: A node in small: its pool, and a disk in it as the disk driver makes one.
NODE = """
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
import node_init
node_init.POOL, node_init.POOL_BYTES = sys.argv[2], 1 << 30
config = json.loads(open(sys.argv[3]).read())
node_init.pool(config)
# What `make run` does where an earlier commit has started the node.
node_init.pool(config)
run = lambda *command: subprocess.run(command, check=True, capture_output=True, text=True).stdout
pool = node_init.POOL
print(run("findmnt", "-no", "FSTYPE,PROPAGATION", pool).split())
run("mkdir", "-p", f"{pool}/disks", f"{pool}/mounts/one")
disk = f"{pool}/disks/one.img"
if subprocess.run(["test", "-e", disk]).returncode:
    run("truncate", "-s", "300M", disk)
    run("mkfs.xfs", "-q", disk)
    run("cp", "--reflink=always", disk, f"{pool}/disks/snapshot.img")
run("mount", "-o", "loop", disk, f"{pool}/mounts/one")
with open(f"{pool}/mounts/one/world", "a") as world:
    world.write("saved\\n")
print(open(f"{pool}/mounts/one/world").read().split(), flush=True)
sys.stdin.read()
"""


def loops(folder: Path) -> list[str]:
    """The loop devices of files below a folder."""
    listed = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"], capture_output=True, text=True
    )
    return [line for line in listed.stdout.splitlines() if line.startswith(str(folder))]


def test_a_pool_comes_back_with_its_disks_and_leaves_no_loop_device(tmp_path: Path) -> None:
    """The first node makes it. Each is killed, as a power cut would; the next finds what was saved."""
    folder = tmp_path / "node"
    folder.mkdir()
    config = tmp_path / "node.json"
    config.write_text(json.dumps({"folder": str(folder)}))
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    arguments = [str(paths.ROOT / "local"), str(tmp_path / "pool"), str(config)]
    for lives in (1, 2):
        with subprocess.Popen(
            [*unshare, "--", sys.executable, "-c", NODE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as node:
            assert node.stdout
            assert node.stdout.readline().strip() == str(["xfs", "shared"])
            assert node.stdout.readline().strip() == str(["saved"] * lives)
            assert len(loops(tmp_path)) == 2
            subprocess.run(["sync"], check=True)
            node.kill()
    assert [file.name for file in folder.iterdir()] == ["pool.img"]
    # A sparse file: what is promised takes no room.
    assert (folder / "pool.img").stat().st_blocks * 512 < 200 << 20
    until(lambda: not loops(tmp_path))
