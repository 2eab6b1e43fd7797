"""A stand-in for helm-daemon, which passes the same tests: `python -m tests.support.fake_helm_daemon`.

It speaks to the API as the program does, and sends Kubernetes one request for each call.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import urlsplit

from service.helm.daemon import PROTOCOL
from service.kube.leases import now


class Call:
    """A call. `until` is when its time is over, by `leases.now`."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.connection = HTTPConnection(urlsplit(_server()).netloc)
        self.answered = False
        self.until = 0.0
        self.extend(request)

    def extend(self, request: dict[str, Any]) -> None:
        self.until = request.get("until", math.inf)

    def run(self) -> dict[str, Any]:
        """Send the request, and answer as helm does."""
        try:
            if now() >= self.until:
                raise OSError("context deadline exceeded: the time of the call is over")
            self.connection.request("GET", f"/api/v1/namespaces/{self.request['namespace']}/secrets")
            if self.connection.getresponse().status == 200:
                return {"code": 1, "stderr": f"Error: uninstall: {self.request['release']}: release: not found\n"}
        except (OSError, HTTPException) as error:
            return {"code": 1, "stderr": f"Error: kubernetes cluster unreachable: {str(error).lower()}\n"}
        return {"code": 1, "stderr": "Error: the server is currently unable to handle the request\n"}

    def close(self) -> None:
        self.until = 0.0
        if self.connection.sock is not None:
            self.connection.sock.shutdown(SHUT_RDWR)


def _server() -> str:
    config = json.loads(Path(os.environ["KUBECONFIG"]).read_text())
    return str(config["clusters"][0]["cluster"]["server"])


def main() -> None:
    """Answer requests until the input ends."""
    calls: dict[int, Call] = {}
    writing = threading.Lock()

    def say(line: dict[str, Any]) -> None:
        with writing:
            print(json.dumps(line), flush=True)

    def finish(id: int, answer: dict[str, Any]) -> None:
        if calls.pop(id, None) is not None:
            say({"id": id, **answer})

    say({"protocol": PROTOCOL})
    for line in sys.stdin:
        request = json.loads(line)
        id, call = request["id"], calls.get(request["id"])
        if request["do"] in ("upgrade", "uninstall"):
            started = calls[id] = Call(request)
            threading.Thread(target=lambda id=id, call=started: finish(id, call.run()), daemon=True).start()
        elif call is not None and request["do"] == "extend":
            call.extend(request)
        elif call is not None:
            call.close()
            finish(id, {"code": 1, "stderr": "Error: context canceled\n"})
    os._exit(0)


if __name__ == "__main__":
    main()
