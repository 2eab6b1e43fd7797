"""A game's disk on the disk driver, side by side with other places of the same node: `python -m tests.bench.disks`.

The other places are the same kind of file system, made and mounted by hand in a file on the same pool; a folder of the
pool itself; and a folder of the node's own file system, which is what local-path gives a game. The rounds alternate, so
that a busy moment of the machine affects all of them. The work is done on the node, where a game's container sees the
same mount.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local import nodes
from tests.cluster.commands import on_node
from tests.cluster.files.servers import Server, get
from tests.cluster.pool import CLASS, FOLDER
from tests.support.environment import use_local_cluster

ROUNDS, GOAL = 15, 0.95
ID = 9_100_021
NODE = nodes.Node(1)
PLAIN = "/opt/local-path-provisioner/bench-disks"
IN_POOL = f"{FOLDER}/bench-disks"
BY_HAND = "/run/bench-disks"
#: As disk-driver/xfs/tools.go and disk-driver/mounts have it, with the system's own programs.
MOUNT_BY_HAND = f"""
set -e
mkdir -p {BY_HAND} {IN_POOL} {PLAIN}
truncate -s 3G {IN_POOL}/disk.img
mkfs.xfs -q -f -K -b size=4096 -s size=4096 -l size=64m -m reflink=0 {IN_POOL}/disk.img
device=$(losetup --find --show --direct-io=on --sector-size 4096 {IN_POOL}/disk.img)
mount -o nosuid,nodev,discard,nouuid $device {BY_HAND}
losetup --detach $device
"""
REMOVE = f"umount {BY_HAND} 2>/dev/null; rm -rf {BY_HAND} {IN_POOL} {PLAIN}"
#: Prints the seconds of each measurement in the folder that is its argument.
WORK = """
import json, os, sys, time
folder = os.path.join(sys.argv[1], "bench")
os.makedirs(folder, exist_ok=True)
block, seconds = os.urandom(1 << 20), {}

def timed(name, work):
    os.sync()
    began = time.monotonic()
    work()
    seconds[name] = time.monotonic() - began

def saves():
    with open(f"{folder}/saves", "wb", buffering=0) as file:
        for _ in range(300):
            file.write(block[:4096])
            os.fsync(file.fileno())

def write():
    with open(f"{folder}/big", "wb", buffering=0) as file:
        for _ in range(256):
            file.write(block)
        os.fsync(file.fileno())

def read():
    with open(f"{folder}/big", "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(1 << 20):
            pass

def files():
    for number in range(1000):
        with open(f"{folder}/{number}", "wb", buffering=0) as file:
            file.write(block[:4096])
    os.sync()
    for number in range(1000):
        os.unlink(f"{folder}/{number}")
    os.sync()

timed("300 writes of 4 KiB, each with fsync", saves)
timed("256 MiB written in one go, with fsync", write)
timed("256 MiB read, not from the cache of its own file system", read)
timed("1,000 files of 4 KiB made and deleted", files)
os.unlink(f"{folder}/big")
print(json.dumps(seconds))
"""


def main() -> None:
    """Measure, and print a Markdown table."""
    print("| measured | disk driver | against | speed | goal |\n|---|---|---|---|---|")
    for row in rows():
        print(f"| {' | '.join(row)} |")


def rows() -> list[tuple[str, str, str, str, str]]:
    """A table's rows: the measurement, the driver's median and slowest time, the other's, the ratio, the goal."""
    table = []
    times = measured()
    for name in next(iter(times.values())):
        ours = times["driver"][name]
        for other, goal in (("the same by hand", GOAL), ("a folder of the pool", None), ("a plain folder", None)):
            theirs = times[other][name]
            ratio = statistics.median(theirs) / statistics.median(ours)
            verdict = (
                "–" if goal is None else f"at least {goal} × the speed: {'met' if ratio >= goal else '**missed**'}"
            )
            table.append(
                (f"disk: {name}", _text(ours), f"{other}: {_text(theirs)}", f"{ratio:.2f} × the speed", verdict)
            )
    return table


def measured() -> dict[str, dict[str, list[float]]]:
    """Seconds by place and measurement. The first round does not count."""
    use_local_cluster()
    times: dict[str, dict[str, list[float]]] = {}
    with _places() as places:
        for count in range(ROUNDS + 1):
            # In turns: the place that is first in one round is last in the next.
            for name, folder in list(places.items())[:: 1 if count % 2 else -1]:
                for measurement, seconds in _work(folder).items():
                    if count:
                        times.setdefault(name, {}).setdefault(measurement, []).append(seconds)
    return times


def _text(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} s, {max(times):.2f} s"


def _work(folder: str) -> dict[str, float]:
    printed = on_node(NODE.name, f"python3 - {folder} <<'END'\n{WORK}\nEND\n")
    seconds: dict[str, float] = json.loads(printed)
    return seconds


@contextmanager
def _places() -> Iterator[dict[str, str]]:
    """The folders to work in, by name."""
    first = get("nodes")["items"][0]["metadata"]["name"]
    with tempfile.TemporaryDirectory() as temporary:
        server = Server.with_new_key(ID, first, Path(temporary), (NODE.address,), storage_class=CLASS)
        server.delete()
        on_node(NODE.name, REMOVE)
        try:
            server.create()
            on_node(NODE.name, MOUNT_BY_HAND)
            yield {
                "driver": server.folder,
                "the same by hand": BY_HAND,
                "a folder of the pool": IN_POOL,
                "a plain folder": PLAIN,
            }
        finally:
            on_node(NODE.name, REMOVE)
            server.delete()


if __name__ == "__main__":
    main()
