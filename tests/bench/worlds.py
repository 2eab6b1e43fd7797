"""A world of 1 GiB backed up, restored and cloned, beside plain restic on its disk: `python -m tests.bench.worlds`.

Ours are timed from the call to the end of its operation, with the pods of its Jobs. One round, because a server may
have two backups in ten minutes. The disk is on the disk driver, the store is the local cluster's S3 server. Plain
restic runs on the node, with a repository of its own in the same store.
"""

from __future__ import annotations

import base64
import json
import statistics
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.bench.contenders import Bench
from tests.cluster.commands import on_node, run
from tests.cluster.pool import Disk, disk_in
from tests.support.environment import local_environment
from tests.support.waiting import until

ROUNDS, GOAL = 1, 1.2
NAMESPACE = "gameservers"
OWED = "gameserver/save-owed"
FILES, MIB = 64, 16
#: Compresses about as well as a game's world does: half of each file is random.
WRITE = f"""
import os
os.makedirs("bench", exist_ok=True)
os.chown("bench", 1000, 1000)
for number in range({FILES}):
    with open(f"bench/{{number}}", "wb") as file:
        for _ in range({MIB}):
            file.write(os.urandom(1 << 19) + bytes(1 << 19))
    os.chown(f"bench/{{number}}", 1000, 1000)
os.sync()
"""

Row = tuple[str, str, str, str, str]


def main() -> None:
    """Measure, and print a Markdown table."""
    print("| measured | ours | against | ratio | goal |\n|---|---|---|---|---|")
    for row in rows(Bench(local_environment())):
        print(f"| {' | '.join(row)} |")


def rows(bench: Bench) -> list[Row]:
    """A table's rows: the measurement, our median and slowest time, restic's, the ratio of medians, the goal."""
    server, clone = bench.id(api=True), bench.id(api=True)
    bench.call("POST", f"server/{server}/", {"ram_gb": 2, "disk_gb": 4, "game": "minecraft"})
    try:
        until(lambda: bench.call("GET", f"server/{server}/")["state"] == "running", 120)
        measured = _Measured(bench, server)
        for number in range(ROUNDS):
            measured.round(number)
        measured.clone(clone)
        return measured.rows()
    finally:
        for id in (server, clone):
            bench.call("DELETE", f"server/{id}/?disk=erase&backups=erase")


class _Measured:
    """The seconds of each thing."""

    def __init__(self, bench: Bench, server: int) -> None:
        self._bench, self._server = bench, server
        claim = json.loads(run("kubectl", "-n", NAMESPACE, "get", "pvc", f"server-{server}", "-o", "json"))
        volume = json.loads(run("kubectl", "get", "pv", claim["spec"]["volumeName"], "-o", "json"))
        self._disk: Disk = disk_in(volume)
        self._restic = _Restic(self._disk)
        self._times: dict[str, list[float]] = {}

    def round(self, number: int) -> None:
        """One round: a new world, backed up and restored by both."""
        on_node(self._disk.node, f"cd {self._disk.folder} && python3 - <<'END'\n{WRITE}\nEND\n")
        ours: list[dict[str, Any]] = []

        def backup() -> None:
            with _Holding(self._server) as holding:
                ours.append(self._done("backup", "POST", f"server/{self._server}/backup", {}))
            self._times.setdefault("hold", []).append(holding.seconds)

        def restore() -> None:
            self._done("restore", "POST", f"server/{self._server}/restore", {"backup": ours[-1]["backup"]})

        for name, mine in (("backup", backup), ("restore", restore)):
            pair: list[Callable[[], None]] = [mine, lambda name=name: self._timed(f"restic {name}", name)]  # type: ignore[misc]
            for each in pair if number % 2 else reversed(pair):
                each()
        self._done("undo", "POST", f"server/{self._server}/undo-restore", {})
        self._restic.forget()

    def clone(self, id: int) -> None:
        """Clone the server."""
        body = {"ram_gb": 2, "disk_gb": 4, "game": "minecraft", "start": False, "from": {"server": self._server}}
        self._done("clone", "POST", f"server/{id}/", body)

    def _timed(self, name: str, command: str) -> None:
        began = time.monotonic()
        getattr(self._restic, command)()
        self._times.setdefault(name, []).append(time.monotonic() - began)

    def _done(self, name: str, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._bench.call(method, path, body)
        operation = f"operation/{answer['id']}"
        until(lambda: self._bench.call("GET", f"{operation}?wait=25")["finished"], 300)
        ended = self._bench.call("GET", operation)
        assert ended["state"] == "done", ended
        self._times.setdefault(name, []).append(_seconds(ended["created"], ended["finished"]))
        return answer

    def rows(self) -> list[Row]:
        """The table's rows."""
        table = []
        for name in ("backup", "restore"):
            ratio = statistics.median(self._times[name]) / statistics.median(self._times[f"restic {name}"])
            against = f"restic {name}: {_text(self._times[f'restic {name}'])}"
            verdict = f"at most {GOAL} ×: {'met' if ratio <= GOAL else '**missed**'}"
            table.append((f"{name} of 1 GiB", _text(self._times[name]), against, f"{ratio:.2f}", verdict))
        held = self._times["hold"]
        verdict = "met" if max(held) < 2 else "**missed**"
        table.append(("how long the game holds still", _text(held), "–", "–", f"under 2 s: {verdict}"))
        table += [(f"{name} of 1 GiB", _text(self._times[name]), "–", "–", "seconds") for name in ("undo", "clone")]
        return table


class _Holding:
    """Measures for how long the game is owed its release."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._ended = threading.Event()
        self.seconds = 0.0

    def __enter__(self) -> _Holding:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        template = f"jsonpath={{.metadata.annotations.{OWED.replace('.', chr(92) + '.')}}}"
        since = None
        while not self._ended.is_set():
            owed = run("kubectl", "-n", NAMESPACE, "get", "statefulset", f"server-{self._server}", "-o", template)
            if owed and since is None:
                since = time.monotonic()
            if not owed and since is not None:
                self.seconds += time.monotonic() - since
                since = None
            time.sleep(0.02)


class _Restic:
    """restic on the node, with a repository of its own in the same store."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        service = json.loads(run("kubectl", "-n", "gameserver-store", "get", "service", "store", "-o", "json"))
        secret = json.loads(run("kubectl", "-n", NAMESPACE, "get", "secret", "backup-store", "-o", "json"))
        credentials = base64.b64decode(secret["data"]["credentials"]).decode()
        url = f"s3:http://{service['spec']['clusterIP']}:7070/bench-{int(time.time())}"
        self._setup = (
            "set -e; umask 077; mkdir -p /tmp/bench-restic; cd /tmp/bench-restic; "
            f"printf %s '{credentials}' > credentials; printf secret > password; "
            "export AWS_SHARED_CREDENTIALS_FILE=/tmp/bench-restic/credentials "
            f"RESTIC_PASSWORD_FILE=/tmp/bench-restic/password RESTIC_REPOSITORY={url} "
            "RESTIC_CACHE_DIR=/tmp/bench-restic/cache; "
        )
        self._run("restic init")

    def _run(self, script: str) -> str:
        return on_node(self._disk.node, f"{self._setup}{script}")

    def backup(self) -> None:
        """Back the world up."""
        self._run(f"cd {self._disk.folder}; restic backup --quiet --exclude .gameserver .")

    def restore(self) -> None:
        """Restore the newest backup beside the world, on the same disk."""
        target = f"{self._disk.folder}/.bench-restored"
        self._run(f"restic restore latest --quiet --target {target}; rm -r {target}")

    def forget(self) -> None:
        """Forget what is there, so that the next round's backup is a new one too."""
        self._run("restic forget --keep-last 1 --quiet")


def _seconds(since: str, until_: str) -> float:
    return (datetime.fromisoformat(until_) - datetime.fromisoformat(since)).total_seconds()


def _text(times: list[float]) -> str:
    return f"{statistics.median(times):.1f} s, {max(times):.1f} s"


if __name__ == "__main__":
    main()
