"""gunicorn's threaded worker, with four changes.

- An answer that waits (web/parking.py) holds no thread: its connection is put aside until the answer is due. A client
  that goes away meanwhile is noticed at once, also if it has sent its next request already (EPOLLRDHUP).
- An answer that goes on and on (web/streaming.py) gets the socket; this worker forgets the connection.
- Invalid HTTP never reaches the application, so this module writes the answer: problem+json, like every other error.
- Before gunicorn closes a connection, it waits up to two seconds for the client to close its side. It waits in the
  thread that also accepts connections, so five clients that do not close would delay everyone else, and Kubernetes'
  probes, by ten seconds, and sixty would get the worker killed. Here, the request's own thread waits.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http import errors as http
from gunicorn.workers.gthread import ThreadWorker

from service import errors

# Answers that have waited and are given at the same moment, as when the replica drains. They do not count as calls
# (web/hooks.py), and must leave threads for those.
_ANSWERS_AT_ONCE = 8
# For how many seconds a client may leave a connection open that has been closed on our side; as gunicorn has it.
_LINGER_SECONDS = 2.0
# What the kernel keeps of a long answer until its client reads it. Linux doubles this.
_SEND_BUFFER = 32 * 1024
# For how many seconds a thread that only computes keeps Python's lock when others want it. A call waits for the lock a
# dozen times, and Python's 5 ms would add up while many clients are sent something.
_SWITCH_SECONDS = 0.0005


class Worker(ThreadWorker):  # type: ignore[misc]
    """The worker; the module's docstring says what differs from gunicorn's.

    A connection whose answer waits has the attribute `waiting` (web/parking.py's Waiting). One that was closed on our
    side after that has the attribute `closing`: until when the client may leave it open. One whose socket someone else
    has got has the attribute `handed`.
    """

    wsgi: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # For the main thread alone: connections whose answer is due, and how many are being answered.
        self._due: deque[Any] = deque()
        self._answering = 0

    def init_process(self) -> None:
        """Run the worker, in its own process."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._aside = _Aside(
            due=lambda conn: self.method_queue.defer(self._enqueue_answer, conn),
            gone=lambda conn: self.method_queue.defer(self._drop, conn),
        )
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application, and tell it that this server puts connections aside."""
        from service.web.parking import PARKS

        super().load_wsgi()
        application = self.wsgi

        def call(environ: dict[str, Any], start_response: Any) -> Any:
            environ[PARKS] = True
            return application(environ, start_response)

        self.wsgi = call

    # -- answers that wait ---------------------------------------------------------------------------------

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer one request, or set `conn.waiting` or `conn.handed`; returns whether the connection stays open."""
        from service.web.parking import Waiting
        from service.web.streaming import HandedOver

        try:
            stays_open: bool = super().handle_request(req, conn)
        except Waiting as waiting:
            conn.waiting = waiting
            return False
        except HandedOver as handed:
            conn.handed = True
            connection = socket.socket(fileno=conn.sock.detach())
            # Otherwise the kernel would keep up to 4 MiB for a client that does not read, at this process's expense.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            handed.take(connection)
            return False
        return stays_open

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """Go on with a connection after a thread has had it."""
        if getattr(conn, "answered", False):
            conn.answered = False
            self._answering -= 1
            self._answer_due()
        if getattr(conn, "handed", False):
            self.nr_conns -= 1
        elif getattr(conn, "waiting", None) or getattr(conn, "closing", None):
            self._aside.add(conn)
        else:
            super().finish_request(conn, fs)

    def _enqueue_answer(self, conn: Any) -> None:
        self._due.append(conn)
        self._answer_due()

    def _answer_due(self) -> None:
        while self._due and self._answering < _ANSWERS_AT_ONCE:
            self._answering += 1
            self.enqueue_req(self._due.popleft())

    def _drop(self, conn: Any) -> None:
        """Forget a connection whose client is gone, or has not closed it in time."""
        if conn.waiting:
            conn.waiting.answer.drop()
        self.nr_conns -= 1
        conn.close()

    def _give_answer(self, conn: Any) -> bool:
        """Give an answer that is due, or set `conn.waiting` again; returns whether the connection stays open."""
        from service.web.parking import Waiting

        waiting, conn.waiting, conn.answered = conn.waiting, None, True
        response = waiting.start_response.__self__  # gunicorn's
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()
        try:
            body = waiting.answer.finish(waiting.environ, waiting.start_response)
            for part in body:
                response.write(part)
            response.close()
        except Waiting as again:
            conn.waiting = again
            return False
        except OSError as error:
            self.log.debug("the client of a waiting answer is gone: %s", error)
            return False
        except Exception as error:
            if not response.headers_sent:
                self.handle_error(response.req, conn.sock, conn.client, error)
            return False
        return not response.should_close() and bool(self._keepalive_after(conn, True))

    # -- connections ---------------------------------------------------------------------------------------

    def handle(self, conn: Any) -> Any:
        """Answer one request; returns whether the connection stays open."""
        if getattr(conn, "waiting", None):
            stays_open = self._give_answer(conn)
            if not stays_open and not conn.waiting:
                # Not below, because the many that a draining replica answers would hold all threads.
                with contextlib.suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_WR)
                    conn.closing = time.monotonic() + _LINGER_SECONDS
            return stays_open
        stays_open = super().handle(conn)
        if not stays_open and not getattr(conn, "waiting", None) and not getattr(conn, "handed", False):
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


class _Aside:
    """The connections that need no thread now. One thread looks after all of them. Thread-safe.

    Args:
        due: Called with each connection whose answer is due. It is no longer looked after then.
        gone: Called with each connection whose client is gone, or has not closed it in time.
    """

    def __init__(self, due: Callable[[Any], None], gone: Callable[[Any], None]) -> None:
        self._due = due
        self._gone = gone
        self._connections: dict[int, Any] = {}
        self._epoll = select.epoll()
        threading.Thread(target=self._look_after, name="waiting answers", daemon=True).start()

    def add(self, conn: Any) -> None:
        """Look after the connection."""
        self._connections[conn.sock.fileno()] = conn
        self._epoll.register(conn.sock.fileno(), select.EPOLLRDHUP)

    def _look_after(self) -> None:
        # Imported in the worker's process, as in handle_error.
        from service.web.parking import TICK

        look_at = time.monotonic()
        while True:
            for descriptor, _ in self._epoll.poll(max(0.0, look_at - time.monotonic())):
                self._gone(self._take(descriptor))
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + TICK
                for descriptor, conn in list(self._connections.items()):
                    if not conn.waiting:
                        if time.monotonic() >= conn.closing:
                            self._gone(self._take(descriptor))
                    elif conn.waiting.answer.due():
                        self._due(self._take(descriptor))

    def _take(self, descriptor: int) -> Any:
        self._epoll.unregister(descriptor)
        return self._connections.pop(descriptor)


def _problem(error: Exception) -> errors.Problem:
    if isinstance(error, http.LimitRequestLine):
        return errors.AddressTooLong()
    if isinstance(error, http.LimitRequestHeaders):
        return errors.HeadersTooLarge()
    # These two are errors in our answer's headers, not in the request.
    answer_is_wrong = isinstance(error, http.InvalidResponseHeader | http.InvalidResponseHeaderName)
    return errors.BadRequest() if isinstance(error, http.ParseException) and not answer_is_wrong else errors.Problem()
