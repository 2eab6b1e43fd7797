"""Answers that wait: a view says what it waits for, and holds no thread until then.

A view returns `parked(ready, answer, seconds)`. Our gunicorn worker (serving/worker.py) then puts the connection aside
and calls `answer` in a thread as soon as `ready()` is true, the time is over, or the replica drains. Under any other
WSGI server, such as Flask's test client, the request waits in its own thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, current_app, g
from structlog.contextvars import bind_contextvars, get_contextvars

from service.errors import TooManyOperations
from service.telemetry import metrics
from service.tokens import Token
from service.web.draining import draining

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

MOST = 500
"""How many answers may wait on one replica. Each keeps a connection open, out of gunicorn's 1,000."""
MOST_OF_A_TOKEN, MOST_OF_A_CUSTOMER = 200, 100
"""How many of these may be of one token that is not confined, and of one customer, across all its tokens."""
TICK = 0.25
"""Seconds between two looks at whether an answer is ready."""
PARKS = "gameserver.parks"
"""Key of the WSGI environment: whether the server puts connections aside, that is, handles `Waiting`."""


def parked(ready: Callable[[], bool], answer: Callable[[], Any], seconds: float) -> Parked:
    """An answer that is given later, without a thread until then. To be returned by a view.

    The hooks of the request have run by then, so neither `ready` nor `answer` may hold a Lease or a place. In `answer`,
    `g` and `request` are those of the request.

    Args:
        ready: Whether to answer now. Called four times a second from a thread that all waiting answers share, without
            Flask's contexts: it must only look at memory. If it raises, the answer is given at once.
        answer: Makes the answer: what a view may return, or another `parked(…)` to go on waiting. It may raise
            problems.
        seconds: After how long the answer is given even if it is not ready.
    """
    return Parked(ready, answer, seconds)


def require_room() -> None:
    """Raises TooManyOperations if no more of the caller's answers may wait. Ask before the call changes anything."""
    token: Token = g.token
    most = MOST_OF_A_CUSTOMER if token.confined else MOST_OF_A_TOKEN
    if _waiting.of(token.share) >= most:
        detail = (
            f"The calls of this {'customer, or ' if token.confined else ''}token that wait are {most}, as many as may."
        )
        raise TooManyOperations(detail, retry_after=5)
    if waiting() >= MOST:
        raise TooManyOperations("Too many calls wait on this replica. Another replica may have room.", retry_after=5)


def waiting() -> int:
    """How many answers wait in this process."""
    return _waiting.all()


class Waiting(Exception):
    """Raised out of the application instead of an answer, for a server that handles it (`PARKS`)."""

    def __init__(self, answer: Parked, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        super().__init__()
        self.answer = answer
        self.environ = environ
        self.start_response = start_response


class Parked(Response):
    """An answer that waits. The server calls `due` until it is true, and then `finish`; or else `drop`, once."""

    def __init__(self, ready: Callable[[], bool], answer: Callable[[], Any], seconds: float) -> None:
        super().__init__()
        self._ready = ready
        self._answer = answer
        self._since = time.monotonic()
        self._until = self._since + seconds
        self._app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        self._bound = get_contextvars()
        self._share = g.token.share if "token" in g else ""

    def due(self) -> bool:
        """Whether to answer now."""
        if draining.is_set() or time.monotonic() >= self._until:
            return True
        try:
            return self._ready()
        except Exception:
            log.warning("a waiting answer cannot tell whether it is ready", exc_info=True)
            return True

    def finish(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Give the answer, as the application would; raises Waiting if it goes on waiting."""
        self.drop()
        with self._app.request_context(environ):
            for name, value in self._memory.items():
                setattr(g, name, value)
            g.waited = g.get("waited", 0.0) + time.monotonic() - self._since
            bind_contextvars(**self._bound)
            try:
                response = self._app.make_response(self._answer())
            except Exception as error:
                response = self._app.make_response(self._app.handle_user_exception(error))
            return self._app.process_response(response)(environ, start_response)

    def drop(self) -> None:
        """Forget the answer, because its client is gone."""
        _waiting.add(self._share, -1)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self._memory = {name: g.get(name) for name in g if name != "limits"}
        _waiting.add(self._share, 1)
        if environ.get(PARKS) and not self.due():
            raise Waiting(self, environ, start_response)
        while not self.due():
            time.sleep(TICK / 5)
        return self.finish(environ, start_response)


class _Count:
    def __init__(self) -> None:
        self._shares: Counter[str] = Counter()
        self._lock = threading.Lock()

    def all(self) -> int:
        with self._lock:
            return self._shares.total()

    def of(self, share: str) -> int:
        with self._lock:
            return self._shares[share]

    def add(self, share: str, number: int) -> None:
        with self._lock:
            self._shares[share] += number
            if not self._shares[share]:
                del self._shares[share]
            metrics.show_waiting_calls(self._shares.total())


_waiting = _Count()
