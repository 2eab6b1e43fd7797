"""Taking parts of the local cluster away for a while: they come back at the end, whatever happens meanwhile."""

import contextlib
import os
import signal
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from local.nodes import Node
from tests.support.waiting import until

_CGROUPS = Path("/sys/fs/cgroup/pids")


def processes(node: Node, name: str = "") -> set[int]:
    """The processes of a node, those in its containers too, by their ids out here; only those called `name`, if given.

    Names are cut by the kernel after 15 characters. Processes and cgroups that go meanwhile are passed over.
    """
    pids = set()
    for folder, _, _ in os.walk(_CGROUPS / node.cgroup.lstrip("/")):
        for pid in _read(Path(folder, "cgroup.procs")).split():
            if name in ("", _read(Path("/proc", pid, "comm")).strip()):
                pids.add(int(pid))
    return pids


def _read(file: Path) -> str:
    """What the kernel says in a file; nothing where that has gone."""
    try:
        return file.read_text()
    except OSError:
        return ""


def _send(pids: Set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def frozen(node: Node, name: str = "") -> Iterator[None]:
    """The processes stop where they are: their connections stay and new ones are taken, by the kernel, unanswered.

    Without a name the whole node stops. Its kernel goes on forwarding packets: it is the machine's own.
    """
    stopped: set[int] = set()
    try:
        # What is forked while this goes on is seen in the next round.
        while more := processes(node, name) - stopped:
            stopped |= more
            _send(more, signal.SIGSTOP)
        assert stopped, f"{node.name} runs no {name}"
        yield
    finally:
        _send(stopped, signal.SIGCONT)


@contextmanager
def stopped(node: Node, static_pod: str) -> Iterator[None]:
    """The kubelet no longer wants this static pod, and its process ends at once, with no time to say goodbye."""
    manifest = node.folder / "etc/kubernetes/manifests" / f"{static_pod}.yaml"
    aside = node.folder / f"{static_pod}.yaml"
    manifest.rename(aside)
    try:

        def gone() -> bool:
            # Until the kubelet has seen the change, it may start another.
            _send(running := processes(node, static_pod), signal.SIGKILL)
            return not running

        until(gone, 30, f"{static_pod} goes on running")
        yield
    finally:
        aside.rename(manifest)
