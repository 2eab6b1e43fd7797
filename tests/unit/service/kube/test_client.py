"""The JSON client: what each answer of an API server turns into."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from service.errors import ClusterUnavailable, OperationFailed, StartupError
from service.kube.client import Conflict, Gone, Kube, path
from tests.support import loopback

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Server:
    """An HTTP server whose answers a test writes."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.connections: list[object] = []
        self.bodies: list[bytes] = []
        self.answers: list[Answer] = []

    def say(self, status: int, body: Any = None) -> None:
        def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
            text = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(text)))
            handler.end_headers()
            handler.wfile.write(text)

        self.answers.append(answer)

    def hang_up(self) -> None:
        self.answers.append(lambda handler, _: setattr(handler, "close_connection", True))

    def dawdle(self, seconds: float) -> None:
        self.answers.append(lambda handler, _: time.sleep(seconds))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found.requests.append(f"{self.command} {self.path}")
            found.connections.append(self.client_address)
            found.bodies.append(body)
            found.answers.pop(0)(self, body)

        do_GET = do_POST = do_PUT = do_DELETE = _any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with loopback.serving(Handler) as url:
        about = {
            "clusters": [{"name": "x", "cluster": {"server": url}}],
            "users": [{"name": "x", "user": {"token": "a-token"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(about))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield found


def test_paths_hold_no_surprise() -> None:
    """A name is one part of the path, whatever is in it."""
    assert path("v1", "games", "pods", "a") == "/api/v1/namespaces/games/pods/a"
    assert path("apps/v1", "games", "statefulsets") == "/apis/apps/v1/namespaces/games/statefulsets"
    assert path("v1", "games", "pods", "../../x?y", "log") == "/api/v1/namespaces/games/pods/..%2F..%2Fx%3Fy/log"


def test_an_object_is_found_or_not(server: Server) -> None:
    """404 is None, not an error."""
    server.say(200, {"kind": "Pod"})
    server.say(404)
    kube = Kube()
    assert kube.get("/a", x="1 2") == {"kind": "Pod"}
    assert kube.get("/b") is None
    assert server.requests == ["GET /a?x=1+2", "GET /b"]


def test_objects_are_asked_for_before_any_has_answered(server: Server) -> None:
    """Each answer is that of its own question, and the connections serve again."""
    both = threading.Barrier(2, timeout=10)

    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        both.wait()
        text = json.dumps({"path": handler.path}).encode()
        handler.send_response(404 if handler.path == "/none" else 200)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    server.answers += [answer] * 4
    kube = Kube()
    assert kube.get_all(["/a?x=1", "/none"]) == [{"path": "/a?x=1"}, None]
    assert kube.get_all(["/b", "/c"]) == [{"path": "/b"}, {"path": "/c"}]
    assert len({*server.connections}) == 2


def test_an_answer_that_nobody_read_is_not_taken_for_anothers(server: Server) -> None:
    """Where one of several fails, the connections of the others are given up."""

    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        if handler.path == "/second":
            handler.close_connection = True
            return
        text = json.dumps({"of": handler.path}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    server.answers += [answer] * 5
    kube = Kube()
    with pytest.raises(ClusterUnavailable):
        kube.get_all(["/second", "/first"])
    assert kube.get("/next") == {"of": "/next"}


def test_a_collection_is_read_page_by_page(server: Server) -> None:
    """And its version is the one of the last page."""
    server.say(200, {"items": [{"a": 1}], "metadata": {"continue": "next", "resourceVersion": "5"}})
    server.say(200, {"items": None, "metadata": {"resourceVersion": "6"}})
    assert Kube().listed("/a", labelSelector="b") == ([{"a": 1}], "6")
    assert server.requests == ["GET /a?limit=500&labelSelector=b", "GET /a?labelSelector=b&limit=500&continue=next"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (409, Conflict),
        (410, Gone),
        (401, ClusterUnavailable),
        (403, ClusterUnavailable),
        (429, ClusterUnavailable),
        (500, ClusterUnavailable),
        (503, ClusterUnavailable),
        (422, OperationFailed),
    ],
)
def test_each_refusal_has_its_error(server: Server, status: int, error: type[Exception]) -> None:
    """Whatever says that Kubernetes is not well is one and the same."""
    server.say(status, {"message": "secret"})
    with pytest.raises(error) as found:
        Kube().get("/a")
    assert "secret" not in str(found.value)


def test_a_body_that_is_no_json_is_no_answer(server: Server) -> None:
    """Some proxy's page, say."""
    server.say(200, b"<html>")
    with pytest.raises(ClusterUnavailable):
        Kube().get("/a")


def test_a_read_survives_a_connection_that_was_closed(server: Server) -> None:
    """The API server was started again: a read asks once more, on a new connection."""
    server.hang_up()
    server.say(200, {"a": 1})
    assert Kube().get("/a") == {"a": 1}
    server.hang_up()
    server.hang_up()
    with pytest.raises(ClusterUnavailable):
        Kube().get("/a")


def test_a_write_is_never_sent_twice(server: Server) -> None:
    """The first may have been carried out."""
    server.hang_up()
    with pytest.raises(ClusterUnavailable):
        Kube().create("/a", {"metadata": {}})
    assert server.requests == ["POST /a"]


def test_an_answer_that_takes_too_long_is_none(server: Server) -> None:
    """In time for an answer of our own within five seconds."""
    server.dawdle(6)
    began = time.monotonic()
    with pytest.raises(ClusterUnavailable):
        Kube().get("/a")
    assert time.monotonic() - began < 4.5


def test_nobody_there_is_said_at_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection."""
    text = (tmp_path / "kubeconfig").read_text()
    about = json.loads(text)
    about["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(json.dumps(about))
    with pytest.raises(ClusterUnavailable):
        Kube().get("/a")


def test_a_create_in_a_namespace_that_is_not_there(server: Server) -> None:
    """Says what the operator has to make."""
    server.say(404)
    with pytest.raises(OperationFailed, match="namespace"):
        Kube().create("/a", {"metadata": {}})


def test_a_delete_is_of_this_very_object(server: Server) -> None:
    """By uid and version; one that is gone is no error."""
    server.say(200)
    server.say(404)
    kube = Kube()
    kube.delete("/a", uid="u", version="7")
    kube.delete("/a")
    assert json.loads(server.bodies[0])["preconditions"] == {"uid": "u", "resourceVersion": "7"}


def test_a_log_that_is_not_there_is_none(server: Server) -> None:
    """400 is what Kubernetes says of a container that has not started."""
    server.say(400)
    server.say(200, b"one\ntwo\xff")
    kube = Kube()
    assert kube.text("/log") is None
    assert kube.text("/log") == "one\ntwo\ufffd"


def test_a_watch_gives_events_as_they_come(server: Server) -> None:
    """Also those that arrive in pieces; a connection cut within one is no end but an error."""

    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in (b'{"type":"ADDED","object":{}}\n{"type":', b'"DELETED","object":{}}\n'):
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            handler.wfile.flush()
        handler.close_connection = True

    server.answers.append(answer)
    events = Kube().watch("/a", "7", metadata=False, seconds=5)
    assert [next(events)["type"] for _ in range(3)] == ["CONNECTED", "ADDED", "DELETED"]
    with pytest.raises(ClusterUnavailable):
        next(events)
    assert "resourceVersion=7" in server.requests[0]


def test_a_watch_from_too_long_ago(server: Server) -> None:
    """Is told to list again."""
    server.say(410)
    with pytest.raises(Gone):
        list(Kube().watch("/a", "7", metadata=False, seconds=5))


def test_without_a_cluster_there_is_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says where one was looked for."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(StartupError, match="KUBECONFIG"):
        Kube()
