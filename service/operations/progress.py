"""How the start of a server goes."""

from __future__ import annotations

from service.operations.checks import require_not_suspended
from service.operations.context import Context
from service.operations.following import reason_to_end
from service.operations.visibility import Target
from service.progress.follow import Seen, StartWish
from service.servers.progress import ENDS, mark_of, new_steps
from service.tokens import Token


def follow_start(
    context: Context,
    caller: Token,
    target: Target,
    *,
    after: str | None,
    events: bool,
    authorization: str | None,
) -> StartWish | None:
    """What to send to a client that follows the start; None if it is over, and the client has had its last step.

    Args:
        context: The collaborators.
        caller: Who follows.
        target: The server.
        after: The id of the last step that the client has had; None if it had none.
        events: Whether the client wants server-sent events.
        authorization: The header with which it has called, to see whether its token stays valid.

    Raises:
        Suspended: The server is suspended, and the caller is its customer.
        TooManyFollowers: There is no room for another.
    """
    require_not_suspended(caller, target.suspended)
    seen, last = Seen.of(target.objects), None if after is None else mark_of(after)
    if seen.steps and seen.steps[-1].name in ENDS and not new_steps(seen.steps, last):
        return None
    context.starts.require_room(caller.name)
    ended = reason_to_end(context, target, authorization, "server:read", gone=None)
    return StartWish(target.id, caller.name, events, ended, seen, last)
