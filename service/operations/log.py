"""The log of a server's game, as it is now."""

from __future__ import annotations

from service.errors import NoLog
from service.logs.lines import MOST_BYTES, Line, Run, lines_of
from service.operations.checks import require_not_suspended
from service.operations.context import Context
from service.operations.visibility import Target
from service.tokens import Token


def read_log(context: Context, caller: Token, target: Target, tail: int, since: int | None) -> tuple[list[Line], bool]:
    """The last lines of the game's log, and whether lines before them were left out because there were too many bytes.

    Args:
        context: The collaborators.
        caller: Who reads.
        target: The server.
        tail: How many lines at most.
        since: From when, in nanoseconds since 1970; None for any time.

    Raises:
        Suspended: The server is suspended, and the caller is its customer.
        NoLog: The game has no log now.
    """
    require_not_suspended(caller, target.spec.suspended if target.spec else None)
    run = context.cluster.pod_run(target.id)
    read = None if run is None else last_lines(context, target.id, Run(*run), tail, since)
    if read is None:
        raise NoLog()
    return read


def last_lines(context: Context, id: int, run: Run, tail: int, since: int | None) -> tuple[list[Line], bool] | None:
    """As `read_log`, of a pod that is known; None if it has no log."""
    lines, seconds, cut = tail, None if since is None else since // 10**9, False
    while True:
        text = context.cluster.log_text(id, tail=lines, since=seconds)
        if text is None:
            return None
        if len(text.encode()) <= MOST_BYTES or lines == 1:
            break
        # Kubernetes cuts the end, but the newest lines are those that matter.
        lines, cut = lines // 2, True
    # Kubernetes counts `since` in whole seconds.
    return [line for line in lines_of(run, text) if since is None or line.place.time >= since], cut
