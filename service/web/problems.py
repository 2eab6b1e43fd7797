"""Errors to answers: the one place where a Problem becomes HTTP (RFC 9457)."""

from __future__ import annotations

import json
import logging
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from service import errors

log = logging.getLogger(__name__)

_OF_STATUS: dict[int, type[errors.Problem]] = {
    400: errors.BadRequest,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    413: errors.BodyTooLarge,
    415: errors.UnsupportedMediaType,
}
# What a client may still be sending when its request has been refused: read, or it would see a broken
# connection in place of the answer. More than this, and the connection is closed on it.
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
    stream, left = request.environ["wsgi.input"], _DISCARDED_BYTES
    if (request.content_length or 0) > left:
        response.headers["Connection"] = "close"
        return
    if not request.environ.get("wsgi.input_terminated"):
        left = request.content_length or 0
    try:
        while left > 0 and (chunk := stream.read(min(left, 65536))):
            left -= len(chunk)
    except OSError:
        log.debug("the client disconnected while it was sending the body")


def register(app: Flask) -> None:
    """Let the app answer every error as problem+json."""

    @app.errorhandler(errors.Problem)
    def _problem(problem: errors.Problem) -> Response:
        if problem.status >= 500 and problem.__cause__ is not None:
            if isinstance(problem, errors.ClusterUnavailable):
                # Every call ends here while Kubernetes is away: a stack for each would fill the disk, and tell no more.
                log.error("%s: %s", problem.slug, problem.__cause__)
            else:
                log.error("%s: %s", problem.slug, problem.detail, exc_info=problem)
        return _answer(problem)

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        kind = _OF_STATUS.get(error.code or 500, errors.BadRequest if (error.code or 500) < 500 else errors.Problem)
        problem = kind()
        # Werkzeug's own headers, which carry Allow on a 405.
        problem.headers |= {
            name: value for name, value in error.get_headers() if name.lower() in ("allow", "retry-after")
        }
        return _answer(problem)

    @app.errorhandler(Exception)
    def _bug(error: Exception) -> Response:
        log.error("unexpected error while answering a request", exc_info=error)
        return _answer(errors.Problem())
