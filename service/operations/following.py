"""Whether a client with a long answer may go on."""

from __future__ import annotations

from collections.abc import Callable

from service.errors import ClusterUnavailable, Suspended, Unauthorized
from service.operations.checks import require_not_suspended
from service.operations.context import Context
from service.operations.visibility import Target, may_see, suspension_of
from service.servers.spec import server_uid, spec_of_objects

GONE = "the server is gone"


def reason_to_end(
    context: Context, target: Target, authorization: str | None, scope: str, gone: str | None = GONE
) -> Callable[[], str | None]:
    """What says why a client may not follow the server any more, as a few words; None while it may.

    It sends no request to Kubernetes.

    Args:
        context: The collaborators.
        target: The server.
        authorization: The header with which the client has called, to see whether its token stays valid.
        scope: What the token must allow.
        gone: What to say when the server has been deleted; None if the client hears of that by itself.
    """
    # Not the target itself: its objects would stay in memory for as long as the client follows.
    id, uid = target.id, target.uid

    def ended() -> str | None:
        try:
            token = context.tokens.caller(authorization)
        except Unauthorized:
            return "the token is no longer valid"
        if scope not in token.actions:
            return "the token no longer allows this"
        try:
            objects = context.cluster.known(id)
        except ClusterUnavailable:
            return None
        if objects is None or (uid is not None and server_uid(objects) not in (None, uid)):
            return gone
        spec = spec_of_objects(objects)
        if spec is not None and not may_see(token, objects, spec):
            return GONE
        try:
            require_not_suspended(token, suspension_of(objects, spec))
        except Suspended:
            return "the server is suspended"
        return None

    return ended
