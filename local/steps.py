"""Steps that show that they are running, how long they took, and where their log is; several can run side by side.

It uses the standard library alone, because it runs before any package is installed.
"""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from local import paths

_TAIL_LINES = 25
T = TypeVar("T")


class StepFailed(Exception):
    """A step failed; the message says which one and shows the tail of its log."""


class _Display:
    """The running steps by their titles, with the time at which each began (seconds of `time.monotonic`).

    On a terminal one line shows them all and is rewritten each second; elsewhere a line is printed every 15 seconds.
    """

    def __init__(self) -> None:
        self._running: dict[str, float] = {}
        self._lock = threading.Lock()
        self._ticker: threading.Thread | None = None

    def begin(self, title: str) -> None:
        with self._lock:
            self._running[title] = time.monotonic()
            if self._ticker is None:
                self._ticker = threading.Thread(target=self._tick, daemon=True)
                self._ticker.start()

    def end(self, title: str, mark: str) -> None:
        with self._lock:
            seconds = time.monotonic() - self._running.pop(title)
            clear = "\r\033[K" if sys.stdout.isatty() else ""
            print(f"{clear}{mark} {title} ({seconds:.1f} s)", flush=True)

    def _tick(self) -> None:
        terminal = sys.stdout.isatty()
        while True:
            time.sleep(1 if terminal else 15)
            with self._lock:
                if not self._running:
                    self._ticker = None
                    return
                now = time.monotonic()
                line = "  " + " · ".join(f"{title} … {now - began:.0f} s" for title, began in self._running.items())
                if terminal:
                    print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
                else:
                    print(line, flush=True)


_display = _Display()


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print `title`, the seconds that pass while the block runs, and how long it took."""
    _display.begin(title)
    mark = "✗"
    try:
        yield
        mark = "✓"
    finally:
        _display.end(title, mark)


class Jobs:
    """Functions that run side by side, each in a thread of its own; one may wait for another's `result()`."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=16)
        self._futures: list[Future[Any]] = []

    def start(self, job: Callable[[], T]) -> Future[T]:
        """Run `job`; its future has what it returns."""
        future = self._pool.submit(job)
        self._futures.append(future)
        return future

    def after(self, earlier: Future[Any], job: Callable[[], T]) -> Future[T]:
        """Run `job` once `earlier` is done."""

        def later() -> T:
            earlier.result()
            return job()

        return self.start(later)

    def finish(self) -> None:
        """Wait until all jobs are done. When one fails, the commands of the others are ended.

        Raises:
            StepFailed: the first failure.
        """
        try:
            done, _ = wait(self._futures, return_when=FIRST_EXCEPTION)
            failed = next((error for future in done if (error := future.exception())), None)
            if failed is not None:
                _commands.end()
                raise failed
        finally:
            self._pool.shutdown()


class _Commands:
    """The commands that are running."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._ended = False

    @contextmanager
    def running(self, process: subprocess.Popen[str]) -> Iterator[None]:
        with self._lock:
            self._running.add(process)
        if self._ended:
            process.terminate()
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(process)

    def end(self) -> None:
        """End them all, and each that starts from now on."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()


_commands = _Commands()


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
    with (
        log.open("w") as out,
        subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.PIPE,
            text=True,
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as process,
        _commands.running(process),
    ):
        # An empty input, where there is none, keeps a command from waiting for the keyboard.
        process.communicate(stdin or "")
    if process.returncode != 0:
        raise StepFailed(f"{name} failed with exit code {process.returncode}; its log is {log}:\n{tail(log)}")


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
