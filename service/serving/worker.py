"""gunicorn's threaded worker, with two of its ways changed.

- What is no HTTP never reaches the application, so its answer is written here: problem+json, as every other error.
- A connection at its end waits up to two seconds for the client to close its side. gunicorn waits in the thread that
  also accepts connections: five clients that do not close would keep all others, and Kubernetes' probes, waiting for
  ten seconds, and sixty would have the worker killed. Here it is the request's own thread that waits.
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
    """See the module's docstring."""

    def handle(self, conn: Any) -> Any:
        """Answer one request; false where the connection is at its end."""
        kept = super().handle(conn)
        if not kept:
            with contextlib.suppress(OSError):
                util.close_graceful(conn.sock.dup())
                # gunicorn closes it once more, and finds nothing left to wait for.
                conn.sock.shutdown(socket.SHUT_RDWR)
        return kept

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what could not be read as a request, or what broke outside of the application."""
        # Imported here, in the worker, as gunicorn's own process imports this module too, and needs no Flask.
        from service.web.problems import body_of

        problem = _problem(exc)
        if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("unexpected error outside the application", exc_info=exc)
        else:
            # Not what was sent: without its colon, `Authorization: Bearer …` is such a line too.
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
    # These two are about the answer's headers, and so about us.
    ours = isinstance(error, http.InvalidResponseHeader | http.InvalidResponseHeaderName)
    return errors.BadRequest() if isinstance(error, http.ParseException) and not ours else errors.Problem()
