"""SFTP through a server's node port, side by side with plain sshd on the same node: `python -m tests.bench.files`.

Plain sshd is the same binary from the same image, on the node's own address: no chroot, no bind mount, no log of
each file, no node port, no memory limit. Both write to the same file system of the node, with the same cipher.
OpenSSH's sftp on the machine itself is the client of both, and each time includes a login. The rounds alternate, so
that a busy moment of the machine affects both.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from local import nodes
from tests.cluster.files.servers import SFTP, Server, eventually, get
from tests.support.environment import use_local_cluster

# The rounds by the last word of a measurement's name. Small files take a second, and vary more.
ROUNDS, GOAL = {"GiB": 4, "KiB": 20}, 0.9
BIG, SMALL, MANY = 1 << 30, 4096, 1000
ID = 9_100_020
PLAIN_PORT = 2299
PLAIN_FOLDER = "/opt/local-path-provisioner/bench-plain"
PLAIN_SSHD = "mkdir -p /run/sshd && exec /usr/sbin/sshd -D -f /bench/sshd_config"
CONFIG = """
Port {port}
HostKey /bench/host_key
PidFile none
AuthorizedKeysFile /bench/keys
StrictModes no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Target:
    """Where OpenSSH's sftp connects to."""

    address: str
    port: int
    user: str
    folder: str
    key: Path

    def run(self, *batch: str) -> None:
        """Run a batch with OpenSSH's sftp. Raises CalledProcessError with the client's message as a note."""
        options = {
            "IdentityFile": str(self.key),
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        command = ["sftp", "-q", "-b", "-", *words, "-P", str(self.port), f"{self.user}@{self.address}"]
        text = "\n".join((f"cd {self.folder}", *batch)) + "\n"
        try:
            subprocess.run(command, input=text, text=True, check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr.strip())
            raise


def main() -> None:
    """Measure, and print a Markdown table."""
    print("| measured | through the node port | against | speed | goal |\n|---|---|---|---|---|")
    for row in rows():
        print(f"| {' | '.join(row)} |")


def rows() -> list[tuple[str, str, str, str, str]]:
    """A table's rows: the measurement, our median and slowest time, plain sshd's, the ratio of the speeds, the goal."""
    table = []
    for name, (ours, plain) in measured().items():
        ratio = statistics.median(plain) / statistics.median(ours)
        mine, theirs = (f"{statistics.median(times):.2f} s, {max(times):.2f} s" for times in (ours, plain))
        verdict = f"at least {GOAL} × the speed: {'met' if ratio >= GOAL else '**missed**'}"
        table.append((f"SFTP: {name}", mine, f"plain sshd: {theirs}", f"{ratio:.2f} × the speed", verdict))
    return table


def measured() -> dict[str, tuple[list[float], list[float]]]:
    """Seconds through the node port and of plain sshd, by measurement. The first round of each does not count."""
    results: dict[str, tuple[list[float], list[float]]] = {}
    use_local_cluster()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        key = folder / "key"
        subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key), check=True)
        _fill(folder)
        with _server(key) as ours, _plain(key, folder) as plain:
            for name, measure in _measures(folder).items():
                times: tuple[list[float], list[float]] = ([], [])
                for count in range(ROUNDS[name.split()[-1]] + 1):
                    # In turns: the target that is first in one round is last in the next.
                    for which in (0, 1) if count % 2 else (1, 0):
                        took = measure((ours, plain)[which])
                        if count:
                            times[which].append(took)
                results[name] = times
    return results


def _measures(folder: Path) -> dict[str, Callable[[Target], float]]:
    def timed(*batch: str) -> Callable[[Target], float]:
        def measure(target: Target) -> float:
            began = time.monotonic()
            target.run(*batch)
            return time.monotonic() - began

        return measure

    return {
        "upload of 1 GiB": timed(f"put {folder}/big big"),
        "download of 1 GiB": timed(f"get big {folder}/back"),
        f"upload of {MANY} files of 4 KiB": timed(f"put -r {folder}/many"),
        f"download of {MANY} files of 4 KiB": timed(f"get -r many {folder}/many-back"),
    }


def _fill(folder: Path) -> None:
    block = os.urandom(1 << 20)
    with (folder / "big").open("wb") as file:
        for _ in range(BIG >> 20):
            file.write(block)
    (folder / "many").mkdir()
    for number in range(MANY):
        (folder / "many" / str(number)).write_bytes(block[:SMALL])


@contextmanager
def _server(key: Path) -> Iterator[Target]:
    """A server on the cluster's first node."""
    first = get("nodes")["items"][0]
    address = next(entry["address"] for entry in first["status"]["addresses"] if entry["type"] == "InternalIP")
    private = asyncssh.read_private_key(str(key))
    # On plain sshd's file system. What the disk driver costs, tests.bench.disks measures.
    server = Server(ID, first["metadata"]["name"], private, key, (address,), storage_class="local-path")
    server.delete()
    try:
        server.create()
        eventually(server.reachable, 20, "the server has access")
        yield Target(address, server.port, server.user, "/files", key)
    finally:
        server.delete()


@contextmanager
def _plain(key: Path, folder: Path) -> Iterator[Target]:
    """sshd from the same image, started by containerd alone in the first node's network."""
    node = nodes.Node(1)
    image = get("daemonset", "sftp", "-n", SFTP)["spec"]["template"]["spec"]["containers"][0]["image"]
    bench = folder / "bench"
    bench.mkdir()
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", bench / "host_key"), check=True)
    shutil.copy(key.with_suffix(".pub"), bench / "keys")
    (bench / "sshd_config").write_text(CONFIG.format(port=PLAIN_PORT))
    _in_node(node, "mkdir", "-p", PLAIN_FOLDER)
    # The node sees the machine's /tmp, so the folder can be mounted there.
    mounts = [
        f"type=bind,src={bench},dst=/bench,options=rbind:ro",
        f"type=bind,src={PLAIN_FOLDER},dst=/data,options=rbind:rw",
    ]
    command = [
        "ctr",
        "-n",
        "bench",
        "run",
        "--rm",
        "--net-host",
        *(word for mount in mounts for word in ("--mount", mount)),
    ]
    # Remove what an interrupted run has left.
    subprocess.run(
        nodes.enter(node, ["ctr", "-n", "bench", "tasks", "kill", "-s", "SIGKILL", "plain"]), stderr=subprocess.DEVNULL
    )
    subprocess.run(nodes.enter(node, ["ctr", "-n", "bench", "containers", "rm", "plain"]), stderr=subprocess.DEVNULL)
    _in_node(node, "sh", "-c", f"ctr -n k8s.io images export - {image} | ctr -n bench images import -")
    sshd = subprocess.Popen(
        nodes.enter(node, [*command, image, "plain", "sh", "-c", PLAIN_SSHD]),
        stdout=subprocess.DEVNULL,
    )
    try:
        target = Target(node.address, PLAIN_PORT, "root", "/data", key)
        eventually(lambda: _works(target), 20, "plain sshd answers")
        yield target
    finally:
        _in_node(node, "ctr", "-n", "bench", "tasks", "kill", "-s", "SIGKILL", "plain")
        sshd.wait(20)
        _in_node(node, "rm", "-rf", PLAIN_FOLDER)
        _in_node(node, "ctr", "-n", "bench", "images", "rm", image)


def _works(target: Target) -> bool:
    try:
        target.run()
    except subprocess.CalledProcessError:
        return False
    return True


def _in_node(node: nodes.Node, *command: str) -> None:
    subprocess.run(nodes.enter(node, command), check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
