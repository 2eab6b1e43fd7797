"""The log of a server's game, as it is now and as it goes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.errors import NoLog
from service.logs.backlog import Piece, piece_after
from service.logs.entries import AGAIN, CUT, GAP, NOT_KEPT, Entry, line_entry, note_entry
from service.logs.follow import Wish
from service.logs.kept import KeptLog
from service.logs.lines import MOST_BYTES, Line, Place, Run, lines_of
from service.operations.checks import require_not_suspended
from service.operations.context import Context
from service.operations.following import reason_to_end
from service.operations.visibility import Target
from service.servers.objects import run_of
from service.servers.spec import server_uid
from service.servers.stops import stop_of
from service.tokens import Token

_SAME_TIME = 20


def read_log(context: Context, caller: Token, target: Target, tail: int, since: int | None) -> list[Entry]:
    """The last lines of the game's log, after notes that say if they are cut, or of a run that has ended.

    Args:
        context: The collaborators.
        caller: Who reads.
        target: The server.
        tail: How many lines at most.
        since: From when, in nanoseconds since 1970; None for any time.

    Raises:
        Suspended: The server is suspended, and the caller is its customer.
        NoLog: The game has no log now, and none of its last lines are kept.
    """
    require_not_suspended(caller, target.suspended)
    run = run_of(target.objects.statefulset, target.objects.pod)
    read = None if run is None else last_lines(context, target.id, Run(*run), tail, since)
    if read is not None:
        lines, cut = read
        return [*([note_entry(CUT)] if cut else []), *map(line_entry, lines)]
    if (kept := _kept(context, target)) is None:
        raise NoLog()
    lines, cut = kept.last(tail, since)
    return _kept_entries(target, kept, lines, NOT_KEPT if cut else None)


def last_lines(context: Context, id: int, run: Run, tail: int, since: int | None) -> tuple[list[Line], bool] | None:
    """As `read_log`, of a pod that is known; None if it has no log."""
    # A few more, so that those of one time are counted from the first.
    lines, seconds, cut = tail + _SAME_TIME, None if since is None else since // 10**9, False
    while True:
        text = context.cluster.log_text(id, run.pod, tail=lines, since=seconds)
        if text is None:
            return None
        if not _is_cut(text) or lines == 1:
            break
        # Kubernetes cuts the end, but the newest lines are those that matter.
        lines, cut = lines // 2, True
    # Kubernetes counts `since` in whole seconds.
    read = [line for line in lines_of(run, text) if since is None or line.place.time >= since][-tail:]
    return read, cut and len(read) < tail


def _is_cut(text: str) -> bool:
    """Whether the log has more than what was read of it."""
    return len(text.encode()) > MOST_BYTES


def follow_log(
    context: Context,
    caller: Token,
    target: Target,
    tail: int,
    since: int | None,
    *,
    after: Place | None,
    events: bool,
    authorization: str | None,
) -> Wish:
    """What to send to a client that follows the log: the last lines, as `read_log`, and then all that is written.

    Args:
        context: The collaborators.
        caller: Who follows.
        target: The server.
        tail: How many lines at most before the new ones.
        since: From when, in nanoseconds since 1970; None for any time.
        after: The last line that the client has had; it replaces `tail` and `since`. None if it had none.
        events: Whether the client wants server-sent events.
        authorization: The header with which it has called, to see whether its token stays valid.

    Raises:
        Suspended: The server is suspended, and the caller is its customer.
        TooManyFollowers: There is no room for another.
    """
    require_not_suspended(caller, target.suspended)
    context.logs.require_room(caller.name)
    mark = context.logs.mark(target.id, target.uid)
    # Read once more: a pod that has come since the mark would be missed.
    now = context.cluster.server(target.id)
    pod = run_of(now.statefulset, now.pod) if server_uid(now) == target.uid else None
    run = None if pod is None else Run(*pod)
    backlog: Sequence[Entry] = ()
    last, complete, behind = None, False, False
    if run is not None and after is not None:
        piece = _resumed(context, target, run, after)
        backlog, last, behind = piece.entries, piece.last, not piece.complete
    elif run is not None and (read := last_lines(context, target.id, run, tail, since)) is not None:
        lines, cut = read
        backlog = [*([note_entry(GAP)] if cut else []), *map(line_entry, lines)]
        last = lines[-1].place if lines else None if since is None else Place(run, since, 0)
    elif (kept := _kept(context, target)) is not None:
        backlog, last = _of_ended(target, kept, tail, since, after)
        complete = True
    ended = reason_to_end(context, target, authorization, "console:read")
    return Wish(target.id, target.uid, caller.name, events, ended, tuple(backlog), last, complete, mark, behind)


def _kept(context: Context, target: Target) -> KeptLog | None:
    """The last lines of the server's last run, if there are any; the server has no log now."""
    return None if target.uid is None else context.kept_logs.read(target.uid)


def _kept_entries(target: Target, kept: KeptLog, lines: Iterable[Line], missing: str | None) -> list[Entry]:
    """The lines of a run that has ended, after a note that says so, and one of what is missing before them."""
    note = f"these are the last lines of a run that ended at {kept.ended}"
    stop = stop_of(target.objects.statefulset) if target.objects.statefulset else None
    if stop is not None and stop.pod not in ("", kept.run.pod) and stop.at > kept.ended:
        note += "; nothing is kept of the last run"
    return [note_entry(note), *([note_entry(missing)] if missing else []), *map(line_entry, lines)]


def _of_ended(
    target: Target, kept: KeptLog, tail: int, since: int | None, after: Place | None
) -> tuple[list[Entry], Place | None]:
    """What a follower is sent of a run that has ended, and the last line that it then has."""
    if after is None:
        lines, cut = kept.last(tail, since)
        return _kept_entries(target, kept, lines, NOT_KEPT if cut else None), lines[-1].place if lines else None
    lines, missing = kept.after(after)
    if not lines:
        return [note_entry(GAP)] if missing else [], after
    return _kept_entries(target, kept, lines, GAP if missing else None), lines[-1].place


def _resumed(context: Context, target: Target, run: Run, after: Place) -> Piece:
    """The first piece of what was written after a line, as far as it is still there."""
    if after.run.pod == run.pod:
        return piece_after(context.cluster, target.id, run, after) or Piece((), after, complete=False)
    entries = [note_entry(GAP)]
    if (kept := _kept(context, target)) is not None and kept.run == after.run:
        lines, missing = kept.after(after)
        entries = [*([note_entry(GAP)] if missing else []), *map(line_entry, lines), note_entry(AGAIN)]
    return Piece(tuple(entries), Place(run, 0, 0), complete=False)
