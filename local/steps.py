"""Steps that show that they are running, how long they took, and where their log is; several can run side by side.

It uses the standard library alone, because it runs before any package is installed.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from local import paths

_TAIL_LINES = 25
T = TypeVar("T")


class StepFailed(Exception):
    """A step failed; the message says which one and shows the tail of its log."""


class Ended(Exception):
    """A command was ended because another job failed. Not a StepFailed: nobody should try the command again."""


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
        """Wait until all jobs are done. If one fails, or on Ctrl-C, end the commands of the others.

        Raises:
            StepFailed: a job failed.
            Ended: jobs outside of these failed, which ended the commands of these.
        """
        failed = True
        try:
            done, _ = wait(self._futures, return_when=FIRST_EXCEPTION)
            failed = any(future.exception() for future in done)
        finally:
            if failed:
                _commands.end()
            self._pool.shutdown()
        failures = [error for future in self._futures if (error := future.exception())]
        if failures:
            # A job's own jobs end all commands before it fails itself, so the cause may come last.
            raise next((error for error in failures if not isinstance(error, Ended)), failures[0])


class _Commands:
    """The commands that are running."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self.ended = False

    @contextmanager
    def running(self, process: subprocess.Popen[str]) -> Iterator[None]:
        with self._lock:
            self._running.add(process)
            if self.ended:
                _terminate(process)
        try:
            yield
        except BaseException:
            _terminate(process)
            raise
        finally:
            with self._lock:
                self._running.discard(process)

    def end(self) -> None:
        """End them all, and each that starts from now on."""
        with self._lock:
            self.ended = True
            for process in self._running:
                _terminate(process)


_commands = _Commands()


def _terminate(process: subprocess.Popen[str]) -> None:
    """End a command and the processes that it started: neither `sh -c` nor `nsenter -p` passes the signal on."""
    if process.poll() is None:
        for pid in [process.pid, *_descendants(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    # The process may end meanwhile.
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (thread / "children").read_text().split())
    return [*children, *(descendant for child in children for descendant in _descendants(child))]


def _complete(command: Sequence[object], stdin: str | None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end.

    Raises:
        Ended: it was ended, because another job failed.
    """
    words = [str(part) for part in command]
    with (
        # Without a pipe, a command could wait for the keyboard.
        subprocess.Popen(words, stdin=subprocess.PIPE, text=True, **options) as process,
        _commands.running(process),
    ):
        stdout, stderr = process.communicate(stdin or "")
    if process.returncode != 0 and _commands.ended:
        raise Ended(f"{words[0]} was ended, because another job failed")
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


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
        Ended: another job failed.
        StepFailed: it exited with something other than 0; names the log and shows its tail.
    """
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    log = paths.LOGS / f"{name}.log"
    with log.open("w") as out:
        result = _complete(
            command,
            stdin,
            cwd=cwd,
            env=None if env is None else dict(env),
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
        Ended: another job failed.
        StepFailed: it exited with something other than 0; shows its message.
    """
    result = _complete(command, stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if result.returncode != 0:
        message = (result.stderr or result.stdout).strip()
        raise StepFailed(f"{' '.join(str(part) for part in command[:4])} … failed: {message[-2000:]}")
    return result.stdout
