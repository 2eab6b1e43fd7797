"""Steps that show that they are alive, how long they took, and where their log is."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from local import paths

_TAIL_LINES = 25


class StepFailed(Exception):
    """A step ended badly; the message says which, and shows the tail of its log."""


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print `title`, the seconds that pass while the block runs, and how long it took.

    On a terminal the line is rewritten each second; elsewhere a dot is printed every 15 seconds.
    """
    began = time.monotonic()
    done = threading.Event()
    terminal = sys.stdout.isatty()

    def tick() -> None:
        while not done.wait(1 if terminal else 15):
            seconds = time.monotonic() - began
            if terminal:
                print(f"\r  {title} … {seconds:.0f} s", end="", flush=True)
            else:
                print(f"  {title} … {seconds:.0f} s", flush=True)

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        done.set()
        ticker.join()
        mark = "✓" if outcome == "done" else "✗"
        start = "\r" if terminal else ""
        print(f"{start}{mark} {title} ({time.monotonic() - began:.1f} s)   ", flush=True)


def run(
    name: str,
    command: Sequence[object],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> None:
    """Run `command` with its output in the log `name`.

    Raises:
        StepFailed: it exited with something other than 0; names the log and shows its tail.
    """
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    log = paths.LOGS / f"{name}.log"
    with log.open("w") as out:
        result = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=None if env is None else dict(env),
            # An empty input, where there is none, keeps a command from waiting for the keyboard.
            input=stdin or "",
            text=True,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if result.returncode != 0:
        raise StepFailed(f"{name} failed with exit code {result.returncode}; its log is {log}:\n{tail(log)}")


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last `lines` lines of a log, indented; empty when there is none."""
    if not log.exists():
        return ""
    text = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in text)


def output(command: Sequence[object], *, stdin: str | None = None) -> str:
    """What `command` prints on its standard output.

    Raises:
        StepFailed: it exited with something other than 0; shows what it said.
    """
    result = subprocess.run([str(part) for part in command], input=stdin, capture_output=True, text=True)
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip()
        raise StepFailed(f"{' '.join(str(part) for part in command[:4])} … failed: {said[-2000:]}")
    return result.stdout
