"""The JSON client turns each response of an API server into an object or an error."""

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

Response = Callable[[BaseHTTPRequestHandler, bytes], None]


class Server:
    """An HTTP server whose responses a test writes."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.connections: list[object] = []
        self.bodies: list[bytes] = []
        self.responses: list[Response] = []

    def respond(self, status: int, body: Any = None) -> None:
        def respond_to(handler: BaseHTTPRequestHandler, _: bytes) -> None:
            text = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(text)))
            handler.end_headers()
            handler.wfile.write(text)

        self.responses.append(respond_to)

    def hang_up(self) -> None:
        self.responses.append(lambda handler, _: setattr(handler, "close_connection", True))

    def wait(self, seconds: float) -> None:
        self.responses.append(lambda handler, _: time.sleep(seconds))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    fake = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.requests.append(f"{self.command} {self.path}")
            fake.connections.append(self.client_address)
            fake.bodies.append(body)
            fake.responses.pop(0)(self, body)

        do_GET = do_POST = do_PUT = do_DELETE = _any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with loopback.serving(Handler) as url:
        kubeconfig = {
            "clusters": [{"name": "x", "cluster": {"server": url}}],
            "users": [{"name": "x", "user": {"token": "a-token"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield fake


def test_a_name_stays_one_part_of_the_path() -> None:
    """Whatever characters are in it."""
    assert path("v1", "games", "pods", "a") == "/api/v1/namespaces/games/pods/a"
    assert path("apps/v1", "games", "statefulsets") == "/apis/apps/v1/namespaces/games/statefulsets"
    assert path("v1", "games", "pods", "../../x?y", "log") == "/api/v1/namespaces/games/pods/..%2F..%2Fx%3Fy/log"


def test_a_missing_object_is_none(server: Server) -> None:
    """404 is no error."""
    server.respond(200, {"kind": "Pod"})
    server.respond(404)
    kube = Kube()
    assert kube.get("/a", x="1 2") == {"kind": "Pod"}
    assert kube.get("/b") is None
    assert server.requests == ["GET /a?x=1+2", "GET /b"]


def test_several_objects_are_requested_before_the_first_response(server: Server) -> None:
    """Each response belongs to its request, and the connections are used again."""
    both = threading.Barrier(2, timeout=10)

    def respond_to(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        both.wait()
        text = json.dumps({"path": handler.path}).encode()
        handler.send_response(404 if handler.path == "/none" else 200)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    server.responses += [respond_to] * 4
    kube = Kube()
    assert kube.get_all(["/a?x=1", "/none"]) == [{"path": "/a?x=1"}, None]
    assert kube.get_all(["/b", "/c"]) == [{"path": "/b"}, {"path": "/c"}]
    assert len({*server.connections}) == 2


def test_an_unread_response_is_not_used_for_another_request(server: Server) -> None:
    """If one of several requests fails, the connections of the others are closed."""

    def respond_to(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        if handler.path == "/second":
            handler.close_connection = True
            return
        text = json.dumps({"of": handler.path}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    server.responses += [respond_to] * 5
    kube = Kube()
    with pytest.raises(ClusterUnavailable):
        kube.get_all(["/second", "/first"])
    assert kube.get("/next") == {"of": "/next"}


def test_a_collection_is_read_page_by_page(server: Server) -> None:
    """Its version is the one of the last page."""
    server.respond(200, {"items": [{"a": 1}], "metadata": {"continue": "next", "resourceVersion": "5"}})
    server.respond(200, {"items": None, "metadata": {"resourceVersion": "6"}})
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
def test_each_error_status_has_its_exception(server: Server, status: int, error: type[Exception]) -> None:
    """All that mean that Kubernetes is not well are ClusterUnavailable."""
    server.respond(status, {"message": "secret"})
    with pytest.raises(error) as raised:
        Kube().get("/a")
    assert "secret" not in str(raised.value)


def test_a_body_that_is_no_json_counts_as_unavailable(server: Server) -> None:
    """For example, a proxy's error page."""
    server.respond(200, b"<html>")
    with pytest.raises(ClusterUnavailable):
        Kube().get("/a")


def test_a_read_survives_a_closed_connection(server: Server) -> None:
    """After a restart of the API server, a read is sent again on a new connection, once."""
    server.hang_up()
    server.respond(200, {"a": 1})
    assert Kube().get("/a") == {"a": 1}
    server.hang_up()
    server.hang_up()
    with pytest.raises(ClusterUnavailable):
        Kube().get("/a")


def test_a_write_is_never_sent_twice(server: Server) -> None:
    """The first request may have been carried out."""
    server.hang_up()
    with pytest.raises(ClusterUnavailable):
        Kube().create("/a", {"metadata": {}})
    assert server.requests == ["POST /a"]


def test_a_response_that_takes_too_long_counts_as_unavailable(server: Server) -> None:
    """Early enough for the API to answer within five seconds."""
    server.wait(6)
    began = time.monotonic()
    with pytest.raises(ClusterUnavailable):
        Kube().get("/a")
    assert time.monotonic() - began < 4.5


def test_a_refused_connection_is_unavailable(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Immediately."""
    text = (tmp_path / "kubeconfig").read_text()
    kubeconfig = json.loads(text)
    kubeconfig["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    with pytest.raises(ClusterUnavailable):
        Kube().get("/a")


def test_a_create_in_a_missing_namespace_fails(server: Server) -> None:
    """The message says what the operator has to create."""
    server.respond(404)
    with pytest.raises(OperationFailed, match="namespace"):
        Kube().create("/a", {"metadata": {}})


def test_a_delete_names_one_object(server: Server) -> None:
    """By its uid and version. A missing object is no error."""
    server.respond(200)
    server.respond(404)
    kube = Kube()
    kube.delete("/a", uid="u", version="7")
    kube.delete("/a")
    assert json.loads(server.bodies[0])["preconditions"] == {"uid": "u", "resourceVersion": "7"}


def test_a_missing_log_is_none(server: Server) -> None:
    """Kubernetes answers 400 for a container that has not started."""
    server.respond(400)
    server.respond(200, b"one\ntwo\xff")
    kube = Kube()
    assert kube.text("/log") is None
    assert kube.text("/log") == "one\ntwo\ufffd"


def test_a_watch_yields_events_as_they_arrive(server: Server) -> None:
    """Also those that arrive in pieces. A connection that breaks is an error, not the end of the watch."""

    def respond_to(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in (b'{"type":"ADDED","object":{}}\n{"type":', b'"DELETED","object":{}}\n'):
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            handler.wfile.flush()
        handler.close_connection = True

    server.responses.append(respond_to)
    events = Kube().watch("/a", "7", metadata=False, seconds=5)
    assert [next(events)["type"] for _ in range(3)] == ["CONNECTED", "ADDED", "DELETED"]
    with pytest.raises(ClusterUnavailable):
        next(events)
    assert "resourceVersion=7" in server.requests[0]


def test_a_watch_from_an_old_version_is_gone(server: Server) -> None:
    """The caller has to list again."""
    server.respond(410)
    with pytest.raises(Gone):
        list(Kube().watch("/a", "7", metadata=False, seconds=5))


def test_without_a_cluster_the_client_cannot_be_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says where the client looked for one."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(StartupError, match="KUBECONFIG"):
        Kube()
