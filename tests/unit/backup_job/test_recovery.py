"""A store and the recovery key bring all servers back, through an API that has its own pace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.docs.snippets import block
from tests.support.backup_jobs import Pod
from tests.unit.backup_job.conftest import ABOUT, SETTINGS, UID

pytestmark = pytest.mark.tools


class Api:
    """An API that has no servers.

    Attributes:
        calls: The path, the token and the body of each call.
        answers: What it answers next: a status, headers, and what is in the body.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.answers: list[tuple[int, dict[str, str], dict[str, Any]]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.calls.append((self.path, self.headers["Authorization"], body))
                status, headers, answer = (
                    api.answers.pop(0) if api.answers else (202, {}, {"operation": {"id": "op-1"}})
                )
                text = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    threading.Thread(target=api.server.serve_forever, daemon=True).start()
    yield api
    api.server.shutdown()
    api.server.server_close()


def backup(pod: Pod, uid: str, number: int) -> str:
    """Back the world up; restic's id of it."""
    settings = {**SETTINGS, "number": number}
    request = {"uid": uid, "backup": f"b-{number}", "settings": settings, "source": "/world"}
    return str(pod.done("backup", request)["snapshot"])


@pytest.mark.long
def test_each_server_of_the_catalogue_is_created_with_its_backups(pod: Pod, api: Api) -> None:
    """Its uid, its settings at the newest backup, and all its backups; the caller is the operator's token."""
    pod.places.token.parent.mkdir(parents=True)
    pod.places.token.write_text("the token\n")
    snapshots = [backup(pod, UID, number) for number in (1, 2)]
    # Killed after it was made, and repeated.
    backup(pod, UID, 2)
    # A server that had the id before, one that the API knows, and one that was never backed up.
    for uid, id in (("earlier", 4711), ("known", 2), ("bare", 3)):
        pod.done("init", {"uid": uid, "about": {**ABOUT, "id": id}})
    backup(pod, "known", 3)
    backup(pod, "earlier", 4)
    newest = backup(pod, UID, 5)
    pod.places.password.unlink()
    busy = (429, {"Retry-After": "0"}, {"detail": "There are too many operations already."})
    api.answers = [busy, (202, {}, {"operation": {"id": "op-1"}}), (200, {}, {"success": True, "operation": None})]
    answer = pod.done("recover", {"api": api.url})
    assert answer == {"created": 1, "there": 1, "without_backup": 1, "older": 1}
    (first, again, other) = api.calls
    path, token, body = first
    assert again == first
    assert (path, token) == ("/api/v1/server/4711/_recover", "Bearer the token")
    assert body["uid"] == UID
    assert body["values"] == {**SETTINGS, "number": 5}
    assert [(each["id"], each["snapshot"]) for each in body["backups"]] == [
        ("b-1", snapshots[0]),
        ("b-2", snapshots[1]),
        ("b-5", newest),
    ]
    assert body["backups"][0]["created"].endswith("Z")
    assert other[0] == "/api/v1/server/2/_recover"


@pytest.mark.long
def test_one_that_cannot_be_created_does_not_keep_the_others(pod: Pod, api: Api) -> None:
    """It is named in the end."""
    pod.places.token.parent.mkdir(parents=True)
    pod.places.token.write_text("the token")
    pod.done("init", {"uid": "other", "about": {**ABOUT, "id": 2}})
    for number, uid in enumerate((UID, "other")):
        backup(pod, uid, number)
    api.answers = [(409, {}, {"detail": "There is a server with this id."})]
    answer = pod.run("recover", {"api": api.url})
    assert (answer["ok"], answer["code"]) == (False, "not-all")
    assert "There is a server with this id." in answer["message"]
    assert '"created": 1' in answer["message"]
    assert len(api.calls) == 2


@pytest.mark.long
def test_the_recovery_key_is_replaced_as_written(pod: Pod) -> None:
    """By docs/operations.md: in each repository, and the old one opens none of them any more."""
    shutil.copy(pod.places.recovery, pod.root / "recovery-key")
    (pod.root / "new-key").write_text("the new key")
    script = block("docs/operations.md", "export RESTIC_PASSWORD_FILE=recovery-key")
    variables = {"PATH": os.environ["PATH"], "HOME": str(pod.root), "STORE": str(pod.places.repositories)}
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=pod.root, env=variables, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert pod.run("init", {"uid": UID, "about": ABOUT})["code"] == "wrong-key"
    pod.recovery("the new key")
    pod.done("init", {"uid": UID, "about": {**ABOUT, "customer": "new"}})
    for name in (UID, "catalogue"):
        keys = json.loads(pod.restic("key", "list", "--json", name=name, key=pod.places.recovery))
        assert len(keys) == (2 if name == UID else 1)
