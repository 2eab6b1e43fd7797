"""Runs helm operations: an event loop in a thread of its own, with a limited number of slots.

Work waits up to 10 seconds for a free slot. A running helm is stopped when its Lease can no longer be renewed, or after
MAX_SECONDS.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from service.errors import ClusterUnavailable, TooManyOperations
from service.helm.daemon import deadline
from service.kube.leases import Lease, now

log = logging.getLogger(__name__)

SLOT_SECONDS = 10.0
MAX_SECONDS = 60.0
"""No helm process runs for longer than this, in seconds, however slow the cluster is."""

Work = Callable[[], Coroutine[Any, Any, object]]


class HelmPool:
    """`number` slots for helm processes. Create it after a fork, because it starts a thread."""

    def __init__(self, number: int) -> None:
        self._free = threading.BoundedSemaphore(number)
        self._loop = asyncio.new_event_loop()
        # The thread lives as long as the process: when it ends, helm gets its parent-death signal (command.py).
        threading.Thread(target=self._loop.run_forever, name="helm", daemon=True).start()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work for as long as the process lives, in no slot."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, lease: Lease, work: Work) -> None:
        """Wait for a free slot and run the work in it, under the Lease.

        Raises:
            TooManyOperations: No slot became free within 10 seconds.
            ClusterUnavailable: The work took too long, or its Lease could not be renewed. The Lease is abandoned.
            Exception: Whatever the work raises.
        """
        if not self._free.acquire(timeout=SLOT_SECONDS):
            raise TooManyOperations
        try:
            asyncio.run_coroutine_threadsafe(_run_in_time(work, lease), self._loop).result()
        finally:
            self._free.release()


async def _run_in_time(start: Work, lease: Lease) -> None:
    latest = now() + MAX_SECONDS

    def until() -> float:
        return min(lease.until(), latest)

    deadline.set(until)
    work = asyncio.ensure_future(start())
    while (remaining := until() - now()) > 0:
        done, _ = await asyncio.wait({work}, timeout=min(remaining, 1.0))
        # Work that has ended too late, well or not, has failed: another may have written since, if we were frozen.
        if done and until() > now():
            await work
            return
    # The work may have left the release unfinished. The next holder of the Lease recovers it.
    lease.abandon()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    log.error("helm was stopped or finished too late: it took too long, or its Lease could not be renewed")
    raise ClusterUnavailable("The operation took too long and was stopped. Send it again.")
