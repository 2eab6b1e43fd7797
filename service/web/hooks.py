"""Around every request: who calls, whether there is room, what it is about; and what is written down of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from flask import Flask, Response, g, request
from structlog.contextvars import bind_contextvars, clear_contextvars

from service import errors
from service.access import Subject
from service.telemetry import logs, metrics
from service.tokens import Token
from service.web.draining import draining
from service.web.routes import Route

access = logging.getLogger("service.access")

# Every call holds one of gunicorn's 48 threads for as long as it takes: an operation for seconds, a read for as long
# while Kubernetes hangs. More than these are turned away at once, rather than wait in a queue that only grows; so
# reads find a thread beside all the operations, and probes beside everything.
OPERATIONS_AT_ONCE = 24
CALLS_AT_ONCE = 40

Find = Callable[[Token, int, Subject], Any]


class Callers(Protocol):
    """Who may call."""

    def caller(self, authorization: str | None) -> Token:
        """The token in an Authorization header; raises Unauthorized without a valid one."""


def register(app: Flask, routes: Iterable[Route], tokens: Callers, find: Find) -> None:
    """Let every request through the gate, and write down how it went.

    `find` gives what a path's id is about, or raises ServerNotFound.
    """
    by_endpoint = {route.endpoint: route for route in routes}
    calls = threading.BoundedSemaphore(CALLS_AT_ONCE)
    operations = threading.BoundedSemaphore(OPERATIONS_AT_ONCE)

    def take(places: threading.BoundedSemaphore) -> None:
        if not places.acquire(blocking=False):
            raise errors.TooManyOperations("This replica is busy. Another replica may have room.", retry_after=2)
        g.setdefault("places", []).append(places)

    def settle(subject: Subject) -> None:
        """Find out which server the request is about, and that its caller may see it."""
        if subject not in (Subject.NONE, Subject.NEW):
            g.target = find(g.token, (request.view_args or {})["id"], subject)
            bind_contextvars(uid=g.target.uid)

    @app.teardown_request
    def done(error: BaseException | None) -> None:
        for places in g.pop("places", []):
            places.release()
        clear_contextvars()

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()
        g.request_id = logs.id_of_request(request.headers.get("X-Request-Id"))
        bind_contextvars(request_id=g.request_id, **({"server": id} if (id := _id()) is not None else {}))
        route = by_endpoint.get(request.endpoint or "")
        # An address that does not exist needs a token too: so no route can be forgotten.
        scope = route.access.scope if route else ""
        g.settle = partial(settle, route.access.subject if route else Subject.NONE)
        if scope is None:
            return
        g.token = tokens.caller(request.headers.get("Authorization"))
        if route is None:
            return
        g.token.require(scope)
        take(calls)
        if request.method != "GET" and scope != "server:read":
            take(operations)
        # What is sent is judged first: a slip in it costs no look at the cluster.
        if not getattr(app.view_functions[route.endpoint], "parses", False):
            g.settle()

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        if draining.is_set():
            # For other servers than gunicorn, which says this by itself (see gunicorn.conf.py).
            response.headers["Connection"] = "close"
        _write_down(response, by_endpoint.get(request.endpoint or ""))
        return response


def _id() -> int | None:
    """The server's id in the request's path."""
    return (request.view_args or {}).get("id")


def _write_down(response: Response, route: Route | None) -> None:
    seconds = time.perf_counter() - g.get("began", time.perf_counter())
    rule = request.url_rule.rule if request.url_rule else "none"
    metrics.request_done(rule, request.method, response.status_code, seconds)
    token = g.get("token")
    outcome = request.environ.get("gameserver.outcome", "ok")
    id = _id()
    # Of an address that is none, nothing is written down: a token may have been put there by mistake.
    place = request.path if id is not None else rule
    if route is not None and route.access.audited:
        name = token.name if token else ""
        logs.audit(token=name, action=route.action, server=id, outcome=outcome, **g.get("noted", {}))
    fields = {
        "method": request.method,
        "route": rule,
        "path": place,
        "status": response.status_code,
        "ms": round(seconds * 1000, 1),
        "token": token.name if token else None,
        "outcome": outcome,
    }
    quiet = route is not None and route.action in ("healthcheck", "readyz") and response.status_code < 400
    level = logging.DEBUG if quiet else logging.INFO
    access.log(level, "%s %s %d", request.method, place, response.status_code, extra={"fields": fields})
