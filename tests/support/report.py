"""Reports of measurements: percentiles, Markdown tables, the machine, and the document to write to."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path


def timed(work: Callable[[], object]) -> float:
    """Call `work` and return how many seconds it took."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def percentile(times: Sequence[float], percent: int) -> float:
    """A percentile, by the nearest rank."""
    return sorted(times)[max(0, -(-len(times) * percent // 100) - 1)]


def seconds(times: Sequence[float]) -> str:
    """p50 and p95 of times in seconds, as text in seconds."""
    return f"{percentile(times, 50):.2f} s, {percentile(times, 95):.2f} s"


def milliseconds(times: Sequence[float], digits: int = 1) -> str:
    """p50 and p95 of times in seconds, as text in milliseconds."""
    return ", ".join(f"{percentile(times, percent) * 1000:.{digits}f} ms" for percent in (50, 95))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str = "---") -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, (align,) * len(head), *rows))


def machine() -> str:
    """The current time, the machine and its load."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} × {model[1] if model else platform.machine()}, "
        f"{memory:.0f} GiB, Linux {platform.release()}; load {os.getloadavg()[0]:.1f} at the start"
    )


def write(document: Path, text: str) -> None:
    """Replace the text between the document's marks."""
    marks = r"(<!-- measured -->\n).*(\n<!-- /measured -->)"
    whole = document.read_text()
    document.write_text(re.sub(marks, lambda match: f"{match[1]}\n{text}\n{match[2]}", whole, flags=re.DOTALL))
