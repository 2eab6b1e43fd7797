"""gunicorn's threaded worker, with two changes.

- Invalid HTTP never reaches the application, so this module writes the answer: problem+json, like every other error.
- Before gunicorn closes a connection, it waits up to two seconds for the client to close its side. It waits in the
  thread that also accepts connections, so five clients that do not close would delay everyone else, and Kubernetes'
  probes, by ten seconds, and sixty would get the worker killed. Here, the request's own thread waits.
"""

from __future__ import annotations

import contextlib
import json
import socket
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http import errors as http
from gunicorn.workers.gthread import ThreadWorker

from service import errors


class Worker(ThreadWorker):  # type: ignore[misc]
    """The worker; the module's docstring says what differs from gunicorn's."""

    def handle(self, conn: Any) -> Any:
        """Answer one request; returns whether the connection stays open."""
        stays_open = super().handle(conn)
        if not stays_open:
            with contextlib.suppress(OSError):
                util.close_graceful(conn.sock.dup())
                # gunicorn closes the connection again, and then has nothing to wait for.
                conn.sock.shutdown(socket.SHUT_RDWR)
        return stays_open

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer a request that could not be parsed, or an error outside the application."""
        # Imported in the worker, because gunicorn's main process imports this module too and must not load Flask.
        from service.web.problems import body_of

        problem = _problem(exc)
        if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("unexpected error outside the application", exc_info=exc)
        else:
            # Do not log what was sent: it may be an `Authorization` header whose colon is missing.
            self.log.info("the request from %s is not valid HTTP: %s", (addr or ("a socket",))[0], type(exc).__name__)
        body = json.dumps(body_of(problem))
        head = [
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
            "Connection: close",
            "Content-Type: application/problem+json",
            f"Content-Length: {len(body)}",
        ]
        with contextlib.suppress(OSError):
            util.write_nonblock(client, "\r\n".join([*head, "", body]).encode())


def _problem(error: Exception) -> errors.Problem:
    if isinstance(error, http.LimitRequestLine):
        return errors.AddressTooLong()
    if isinstance(error, http.LimitRequestHeaders):
        return errors.HeadersTooLarge()
    # These two are errors in our answer's headers, not in the request.
    answer_is_wrong = isinstance(error, http.InvalidResponseHeader | http.InvalidResponseHeaderName)
    return errors.BadRequest() if isinstance(error, http.ParseException) and not answer_is_wrong else errors.Problem()
