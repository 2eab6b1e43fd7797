"""Context managers that take parts of the local cluster away. The parts always come back at the end."""

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
    """The pids, on this machine, of a node's processes and those in its containers; only those called `name`, if given.

    The kernel cuts names after 15 characters. Processes and cgroups that end meanwhile are skipped.
    """
    pids = set()
    for folder, _, _ in os.walk(_CGROUPS / node.cgroup.lstrip("/")):
        for pid in _read(Path(folder, "cgroup.procs")).split():
            if name in ("", _read(Path("/proc", pid, "comm")).strip()):
                pids.add(int(pid))
    return pids


def _read(file: Path) -> str:
    """The content of a kernel's file; "" if the file is gone."""
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
    """Freeze the processes. Their connections stay open, and the kernel accepts new ones that nobody answers.

    Without a name the whole node freezes. Packets are still forwarded, because its kernel is the machine's own.
    """
    stopped: set[int] = set()
    try:
        # The next round sees what was forked during this one.
        while more := processes(node, name) - stopped:
            stopped |= more
            _send(more, signal.SIGSTOP)
        assert stopped, f"{node.name} runs no {name}"
        yield
    finally:
        _send(stopped, signal.SIGCONT)


@contextmanager
def stopped(node: Node, static_pod: str) -> Iterator[None]:
    """Take a static pod away from the kubelet, and kill its process at once."""
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
