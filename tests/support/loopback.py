"""HTTP servers on loopback, for stand-ins of Kubernetes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Server(ThreadingHTTPServer):
    # At its start the API opens as many connections as it has watches. With socketserver's queue of 5 the kernel may
    # drop one, which is sent again after a second: too late for the API's connect timeout.
    request_queue_size = 128


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve with `handler`, with a thread for each connection, and yield the URL."""
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def kubeconfig(folder: Path, url: str) -> str:
    """Write a kubeconfig for the URL, without credentials, and return its path."""
    path = folder / "loopback.json"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "loopback", "cluster": {"server": url}}],
        "users": [{"name": "loopback", "user": {}}],
        "contexts": [{"name": "loopback", "context": {"cluster": "loopback", "user": "loopback"}}],
        "current-context": "loopback",
    }
    path.write_text(json.dumps(config))
    return str(path)
