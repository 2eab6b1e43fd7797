"""Which processes use the CPU: what a call costs each of them, and what each costs at rest."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Processes by the name that the kernel has for them (at most 15 characters), and the column of each.
NAMES = {
    "kube-apiserver": "API server",
    "etcd": "etcd",
    "kube-controller": "kube-controller-manager",
    "kube-scheduler": "kube-scheduler",
    "kube-proxy": "kube-proxy",
    "gunicorn": "the API",
    "helm-daemon": "helm-daemon",
    "python": "controller",
    "python3": "agents",
    "kwok": "kwok",
}
OTHERS = "others"
COLUMNS = (*NAMES.values(), OTHERS)
_TICK = 1 / os.sysconf("SC_CLK_TCK")

Seconds = dict[str, float]


def used() -> Seconds:
    """The CPU seconds that the running processes have used so far, by column.

    Those of children that have ended are included: kube-proxy starts a process for each change of its rules.
    """
    seconds = dict.fromkeys(COLUMNS, 0.0)
    for name, ticks in _processes():
        seconds[NAMES.get(name, OTHERS)] += ticks * _TICK
    return seconds


def at_rest(duration: float) -> Seconds:
    """The CPU seconds that each column uses in a second while nothing is asked of it, over `duration` seconds."""
    before, began = used(), time.monotonic()
    time.sleep(duration)
    return _per(before, used(), time.monotonic() - began)


def of_each(before: Seconds, took: float, resting: Seconds, count: int) -> Seconds:
    """The CPU seconds of each of `count` calls since `before`, beyond what would have been used at rest.

    Args:
        before: what `used` returned before the calls.
        took: how many seconds they took.
        resting: what `at_rest` returned.
    """
    return {name: seconds - resting[name] * took / count for name, seconds in _per(before, used(), count).items()}


def _per(before: Seconds, after: Seconds, count: float) -> Seconds:
    return {name: (after[name] - before[name]) / count for name in after}


def _processes() -> Iterator[tuple[str, int]]:
    """The name and the ticks of each process, with those of its ended children."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with suppress(OSError):
            before, after = (folder / "stat").read_text().rsplit(")", 1)
            # See proc_pid_stat(5): utime, stime, cutime and cstime are the fields 14 to 17.
            yield before.split("(", 1)[1], sum(map(int, after.split()[11:15]))
