"""The API's replicas in the cluster: their pods, their logs and their processes."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.conftest import Cluster

NAMESPACE = "gameserver-system"
#: Of the release `api` only: pods of another release, which a test had installed, may still be ending.
_SELECTOR = ("-l", "app.kubernetes.io/component=api,app.kubernetes.io/instance=api")


def get(cluster: Cluster, *arguments: str) -> dict[str, Any]:
    """The output of `kubectl get … -o json` in the API's namespace."""
    return cluster.get("-n", NAMESPACE, *arguments)


def pods(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """The replicas' pods by name, including those that are ending."""
    return {pod["metadata"]["name"]: pod for pod in get(cluster, "pods", *_SELECTOR)["items"]}


def logged(cluster: Cluster, logger: str, **fields: object) -> list[dict[str, Any]]:
    """The log lines of all replicas that come from this logger and have these fields, with `pod` added."""
    entries = []
    for line in cluster.run(
        *("kubectl", "-n", NAMESPACE, "logs", *_SELECTOR),
        *("--prefix", "--since=5m", "--tail=-1", "--ignore-errors"),
    ).splitlines():
        prefix, _, text = line.partition(" ")
        if text.startswith("{"):
            entry = {"pod": prefix.split("/")[1], **json.loads(text)}
            if entry["logger"] == logger and fields.items() <= entry.items():
                entries.append(entry)
    return entries


def processes_of(mark: str) -> Iterator[tuple[int, bytes]]:
    """The processes on this machine that are in the cgroup of a pod or a container: their pids and command lines.

    Args:
        mark: The pod's uid, or the container's id.
    """
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "cgroup").read_text():
                yield int(folder.name), (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue


def first_process(pod: dict[str, Any], program: str = "gunicorn") -> int:
    """The first process of the pod's container, which runs `program`, as its pid on this machine.

    All others end with it.
    """
    for pid, command in processes_of(pod["metadata"]["uid"]):
        if program.encode() in command and _is_first(pid):
            return pid
    raise AssertionError(f"no process of {pod['metadata']['name']} is on this machine")


def _is_first(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:")) == "1"


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    """While these processes do nothing."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
