"""Where helm processes run: an event loop in a thread of its own, with a limited number of slots.

Work waits up to 10 seconds for a free slot; a helm that is at work is ended when its Lease can no longer be renewed, or
after LONGEST seconds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from service.errors import ClusterUnavailable, TooManyOperations
from service.kube.leases import Lease

log = logging.getLogger(__name__)

SLOT_SECONDS = 10.0
LONGEST = 60.0
"""No helm process runs for longer than this, in seconds, however slow the cluster is."""

Work = Callable[[], Coroutine[Any, Any, object]]


class HelmPool:
    """`number` slots for helm processes. Create it after a fork, because it starts a thread."""

    def __init__(self, number: int) -> None:
        self._free = threading.BoundedSemaphore(number)
        self._loop = asyncio.new_event_loop()
        # The thread lives as long as the process: helm gets its parent-death signal when it ends (helm.py).
        threading.Thread(target=self._loop.run_forever, name="helm", daemon=True).start()

    def run(self, lease: Lease, work: Work) -> None:
        """Wait for a free slot and run the work in it, under the Lease.

        Raises:
            TooManyOperations: no slot became free within 10 seconds.
        """
        if not self._free.acquire(timeout=SLOT_SECONDS):
            raise TooManyOperations
        try:
            asyncio.run_coroutine_threadsafe(_in_time(work, lease), self._loop).result()
        finally:
            self._free.release()


async def _in_time(start: Work, lease: Lease) -> None:
    work = asyncio.ensure_future(start())
    until = time.monotonic() + LONGEST
    while (left := min(lease.remaining(), until - time.monotonic())) > 0:
        done, _ = await asyncio.wait({work}, timeout=min(left, 1.0))
        if done:
            await work
            # Frozen for a while, it came to its end, but too late: another may have written since.
            if lease.remaining() > 0:
                return
    # What was cut off may have left the release unfinished: whoever takes the Lease over recovers it.
    lease.abandon()
    work.cancel()
    await asyncio.wait({work})
    log.error("helm was ended or came too late, as it took too long or its Lease could not be renewed")
    raise ClusterUnavailable("The operation took too long and was ended; send it again.")
