"""Runs before and after every request: checks the token, limits the load, finds the server, and logs the request."""

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
from service.web.parking import Parked
from service.web.routes import Route

access = logging.getLogger("service.access")

# Every call holds one of gunicorn's 56 threads until it ends: an operation takes seconds, and so does a read while
# Kubernetes hangs. The API refuses calls beyond these limits at once, because a queue of them would only grow. So reads
# find a free thread next to all operations, and probes next to all other calls. A call that waits (parking.py) holds
# no thread.
OPERATIONS_AT_ONCE = 24
CALLS_AT_ONCE = 40

FindTarget = Callable[[Token, int, Subject], Any]
"""Finds the server with this id that the token may see; raises ServerNotFound."""


class Callers(Protocol):
    """The tokens that may call."""

    def caller(self, authorization: str | None) -> Token:
        """The token in an Authorization header; raises Unauthorized without a valid one."""


def register(app: Flask, routes: Iterable[Route], tokens: Callers, find: FindTarget) -> None:
    """Register the hooks.

    Args:
        app: The application.
        routes: What each route requires.
        tokens: Knows the caller of a request.
        find: Finds the server that a path names.
    """
    by_endpoint = {route.endpoint: route for route in routes}
    calls = threading.BoundedSemaphore(CALLS_AT_ONCE)
    operations = threading.BoundedSemaphore(OPERATIONS_AT_ONCE)

    def enter(limit: threading.BoundedSemaphore) -> None:
        if not limit.acquire(blocking=False):
            raise errors.TooManyOperations("This replica is busy. Another replica may have room.", retry_after=2)
        g.setdefault("limits", []).append(limit)

    def find_target(subject: Subject) -> None:
        """Find the server that the request names; raises ServerNotFound if the caller may not see it."""
        if subject not in (Subject.NONE, Subject.NEW):
            g.target = find(g.token, (request.view_args or {})["id"], subject)
            bind_contextvars(uid=g.target.uid)

    @app.teardown_request
    def release_limits(error: BaseException | None) -> None:
        for limit in g.pop("limits", []):
            limit.release()
        clear_contextvars()

    @app.before_request
    def check_request() -> None:
        g.started = time.perf_counter()
        g.request_id = logs.id_of_request(request.headers.get("X-Request-Id"))
        bind_contextvars(request_id=g.request_id, **({"server": id} if (id := _server_id()) is not None else {}))
        route = by_endpoint.get(request.endpoint or "")
        # Unknown paths need a token too, so a forgotten route cannot be public.
        scope = route.access.scope if route else ""
        g.find_target = partial(find_target, route.access.subject if route else Subject.NONE)
        if scope is None:
            return
        g.token = tokens.caller(request.headers.get("Authorization"))
        if route is None:
            return
        g.token.require(scope)
        enter(calls)
        if request.method != "GET" and scope != "server:read":
            enter(operations)
        # A view that parses a body or a query does so first: an invalid request must not cost a read of the cluster.
        if not getattr(app.view_functions[route.endpoint], "parses", False):
            g.find_target()

    @app.after_request
    def complete_response(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        if draining.is_set():
            # For WSGI servers other than gunicorn, which sends this header itself (see gunicorn.conf.py).
            response.headers["Connection"] = "close"
        route = by_endpoint.get(request.endpoint or "")
        if route is not None and route.access.audited and "waited" not in g:
            # If the answer waits, what was asked for has been done already.
            _audit(route)
        if not isinstance(response, Parked):
            _log_request(response, route)
        return response


def _server_id() -> int | None:
    """The server's id in the request's path."""
    return (request.view_args or {}).get("id")


def _audit(route: Route) -> None:
    """Write the audit line of the request."""
    token, outcome = g.get("token"), request.environ.get("gameserver.outcome", "ok")
    name = token.name if token else ""
    logs.audit(token=name, action=route.action, server=_server_id(), outcome=outcome, **g.get("audit_fields", {}))


def _log_request(response: Response, route: Route | None) -> None:
    """Count the request, and write its access line."""
    seconds = time.perf_counter() - g.get("started", time.perf_counter())
    rule = request.url_rule.rule if request.url_rule else "none"
    # Without the time that the client has asked to wait: a slow call is one that keeps this process busy.
    metrics.count_request(rule, request.method, response.status_code, seconds - g.get("waited", 0.0))
    token = g.get("token")
    outcome = request.environ.get("gameserver.outcome", "ok")
    # Do not log unknown paths: a client may have put a token there by mistake.
    path = request.path if _server_id() is not None else rule
    fields = {
        "method": request.method,
        "route": rule,
        "path": path,
        "status": response.status_code,
        "ms": round(seconds * 1000, 1),
        "token": token.name if token else None,
        "outcome": outcome,
    }
    quiet = route is not None and route.action in ("healthcheck", "readyz") and response.status_code < 400
    level = logging.DEBUG if quiet else logging.INFO
    access.log(level, "%s %s %d", request.method, path, response.status_code, extra={"fields": fields})
