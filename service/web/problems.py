"""Turns errors into HTTP answers (RFC 9457). No other module does this."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge

from service import errors

log = logging.getLogger(__name__)

_BY_STATUS: dict[int, type[errors.Problem]] = {
    400: errors.BadRequest,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    413: errors.BodyTooLarge,
    415: errors.UnsupportedMediaType,
}
# If the API refuses a request while the client is still sending the body, it reads the rest up to this limit. Otherwise
# the client would see a broken connection instead of the answer. Beyond the limit, the API closes the connection.
_DISCARDED_BYTES = 16 * 1024 * 1024


def body_of(problem: errors.Problem) -> dict[str, Any]:
    """The JSON of a problem's answer."""
    body: dict[str, Any] = {
        "success": False,
        "type": f"/problems/{problem.slug}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.errors:
        body["errors"] = problem.errors
    return body


def _answer(problem: errors.Problem) -> Response:
    """The answer for a problem; it also notes the outcome for the log."""
    response = Response(
        json.dumps(body_of(problem)),
        status=problem.status,
        mimetype="application/problem+json",
        headers=problem.headers,
    )
    request.environ["gameserver.outcome"] = problem.slug
    _discard_body(response)
    return response


def _discard_body(response: Response) -> None:
    """Read the rest of the request's body, or let `response` close the connection."""
    stream, remaining = request.environ["wsgi.input"], _DISCARDED_BYTES
    if (request.content_length or 0) > remaining:
        response.headers["Connection"] = "close"
        return
    try:
        if not request.environ.get("wsgi.input_terminated"):
            # Such a server (Flask's own) would wait for more than the body. `request.stream` knows what was read of it.
            remaining = request.content_length or 0
            with suppress(RequestEntityTooLarge):
                stream = request.stream
        while remaining > 0 and (chunk := stream.read(min(remaining, 65536))):
            remaining -= len(chunk)
    except (OSError, ClientDisconnected):
        log.debug("the client disconnected while it was sending the body")


def register(app: Flask) -> None:
    """Make the app answer every error with problem+json."""

    @app.errorhandler(errors.Problem)
    def handle_problem(problem: errors.Problem) -> Response:
        if problem.status >= 500 and problem.__cause__ is not None:
            if isinstance(problem, errors.ClusterUnavailable):
                # While Kubernetes is away, every call fails here. A stack trace for each would only fill the disk.
                log.error("%s: %s", problem.slug, problem.__cause__)
            else:
                log.error("%s: %s", problem.slug, problem.detail, exc_info=problem)
        return _answer(problem)

    @app.errorhandler(HTTPException)
    def handle_http_exception(error: HTTPException) -> Response:
        kind = _BY_STATUS.get(error.code or 500, errors.BadRequest if (error.code or 500) < 500 else errors.Problem)
        problem = kind()
        # Keep werkzeug's headers, such as Allow on a 405.
        problem.headers |= {
            name: value for name, value in error.get_headers() if name.lower() in ("allow", "retry-after")
        }
        return _answer(problem)

    @app.errorhandler(Exception)
    def handle_bug(error: Exception) -> Response:
        log.error("unexpected error while answering a request", exc_info=error)
        return _answer(errors.Problem())
