"""What is kept for as long as a client follows."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any, cast

from service.operations.following import GONE, reason_to_end
from service.operations.visibility import Target
from service.servers.objects import ServerObjects
from service.tokens import Token


def test_a_server_that_is_followed_can_leave_the_memory() -> None:
    """Five hundred followers would hold five hundred copies of its objects."""
    objects = ServerObjects(7, statefulset={"metadata": {"annotations": {}}})
    gone = weakref.ref(objects)
    token = SimpleNamespace(actions={"console:read"})
    context = cast(
        Any,
        SimpleNamespace(
            tokens=SimpleNamespace(caller=lambda authorization: cast(Token, token)),
            cluster=SimpleNamespace(known=lambda id: None),
        ),
    )
    ended = reason_to_end(context, Target(7, objects, None), None, "console:read")
    del objects
    gc.collect()
    assert gone() is None
    assert ended() == GONE
