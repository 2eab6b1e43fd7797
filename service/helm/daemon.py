"""Keeps helm-daemon running: the program that does what helm does, for many calls in one process (helm-daemon/).

A process of helm starts for each write, reads the chart and asks Kubernetes for all its kinds: most of its time. The
daemon has done that already. The two speak JSON, a line for each request and each answer, over the daemon's standard
input and output: so values are in no file and no command line, and nobody else can ask.

It dies with this process, as a helm process does (see `command`), and when its standard input ends. Calls that are
under way when it dies have failed like those of a killed helm, and are never sent again. While it does not run, helm
itself is used; see `command.HelmCommand`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from pyhelm3 import errors as helm_errors

log = logging.getLogger(__name__)

PROTOCOL = 3
"""The same number as in helm-daemon/serve.go."""
EXTEND_EVERY = 1.0
START_SECONDS = 20.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the daemon is started again; each time twice as long, until it has run for the longest."""
_LONGEST_ANSWER = 2**22

deadline: ContextVar[Callable[[], float] | None] = ContextVar("deadline", default=None)
"""When the current work may send no more requests to Kubernetes, by `leases.now`. No limit if not set.

A number of seconds would not do: the daemon may be frozen, or busy, and take a call long after it was sent.
"""


class Daemon:
    """The program, which `keep` keeps running. All methods belong to one event loop.

    Args:
        command: Its command line.
        environment: Its environment.
        grace: How many seconds it has to stop a call, before it is killed.
        changed: Called with whether it runs, whenever that changes.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        grace: float,
        changed: Callable[[bool], None] = lambda runs: None,
    ) -> None:
        self._command = command
        self._environment = environment
        self._grace = grace
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._calls: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._ids = itertools.count(1)

    @property
    def runs(self) -> bool:
        """Whether it can take a call."""
        return self._process is not None

    async def keep(self) -> None:
        """Start the daemon, and again whenever it has ended. Runs until it is cancelled."""
        pause = SHORTEST_PAUSE
        while True:
            began = time.monotonic()
            try:
                await self._run()
            except (TimeoutError, OSError, ValueError) as error:
                log.error("helm-daemon cannot be used: %s", type(error).__name__)
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = SHORTEST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def call(self, request: Mapping[str, Any]) -> bytes:
        """Let the daemon carry out a request, and return what helm would print.

        If the call is cancelled, the daemon sends no request to Kubernetes any more when this returns.

        Raises:
            pyhelm3.errors.Error: The operation failed, or the daemon died.
        """
        id, answered = next(self._ids), asyncio.get_running_loop().create_future()
        self._calls[id] = answered
        try:
            self._send({**request, "id": id, **_limit()})
            while not (await asyncio.wait({answered}, timeout=EXTEND_EVERY))[0]:
                self._send({"id": id, "do": "extend", **_limit()})
        except asyncio.CancelledError:
            await self._cancel(id, answered)
            raise
        finally:
            del self._calls[id]
        answer = answered.result()
        if answer["code"] == 0:
            return str(answer.get("stdout", "")).encode()
        raise failure(answer["code"], str(answer.get("stderr", "")).encode())

    # -- the process -----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=dict(self._environment),
            limit=_LONGEST_ANSWER,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        complaint = asyncio.ensure_future(_end_of(process.stderr))
        try:
            async with asyncio.timeout(START_SECONDS):
                greeting = json.loads(await process.stdout.readline() or b"{}")
            if greeting.get("protocol") != PROTOCOL:
                raise ValueError("it speaks another protocol, or has ended")
            self._process = process
            self._changed(True)
            log.info("helm-daemon runs")
            while line := await process.stdout.readline():
                self._answered(json.loads(line))
        finally:
            self._process = None
            ending = asyncio.ensure_future(self._end(process, complaint))
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                await ending
                raise

    async def _end(self, process: asyncio.subprocess.Process, complaint: asyncio.Future[str]) -> None:
        """Wait until the daemon has ended, and fail its calls: only then does it certainly write nothing more."""
        assert process.stdin is not None
        assert process.stdout is not None
        _kill(process)
        process.stdin.close()
        await asyncio.gather(process.stdout.read(), complaint)
        code = await process.wait()
        self._changed(False)
        log.error("helm-daemon has ended (%s): %s", code, complaint.result())
        for answered in self._calls.values():
            if not answered.done():
                answered.set_result({"code": code or -1, "stderr": "helm-daemon has ended"})

    def _answered(self, answer: Mapping[str, Any]) -> None:
        call = self._calls.get(answer["id"])
        if call is not None and not call.done():
            call.set_result(answer)

    def _send(self, request: Mapping[str, Any]) -> None:
        # What is not read is bounded by the pool's slots. If nobody reads, the end of the output tells.
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")

    async def _cancel(self, id: int, answered: asyncio.Future[Mapping[str, Any]]) -> None:
        """Stop a call. If the daemon does not answer in time, end it, with all its calls."""
        self._send({"id": id, "do": "cancel"})
        process = self._process
        await asyncio.wait({answered}, timeout=self._grace)
        if not answered.done() and process is not None:
            log.error("helm-daemon does not stop a call, so it is killed")
            _kill(process)
            await asyncio.wait({answered}, timeout=self._grace)


def failure(code: int | None, stderr: bytes) -> helm_errors.Error:
    """pyhelm3's error for a helm that has failed. Standard output may contain Secrets, so it is dropped."""
    kind = helm_errors.ReleaseNotFoundError if b"release: not found" in stderr else helm_errors.Error
    return kind(code, b"", stderr)


def _limit() -> dict[str, float]:
    until = deadline.get()
    return {} if until is None else {"until": until()}


def _kill(process: asyncio.subprocess.Process) -> None:
    """End the daemon, with whatever it may have started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _end_of(stream: asyncio.StreamReader) -> str:
    """The last 2,000 bytes of a stream."""
    end = b""
    while part := await stream.read(4096):
        end = (end + part)[-2000:]
    return end.decode(errors="replace").strip()
