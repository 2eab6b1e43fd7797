"""Operations in bulk in a real cluster: the API and two controllers as processes, of which the active one is killed."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from service.controller.leader import NAME
from service.helm.revisions import Revisions
from service.kube.client import Kube, path
from service.settings import Settings
from tests.contract.conftest import Interfaces, statuses
from tests.contract.replica import Call, Served, serving
from tests.support import controller, tokens
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

STOPPED = {"ram_gb": 1, "disk_gb": 1, "game": "teeworlds", "start": False}


class Controllers:
    """Controllers as processes of their own."""

    def __init__(self, settings: Settings, kubeconfig: str, folder: Path) -> None:
        self._kube, self._namespace = Kube(), settings.servers_namespace
        self._folder = folder
        self._variables = {
            "KUBECONFIG": kubeconfig,
            "HELM": settings.helm,
            "HELM_DAEMON": settings.helm_daemon,
            "SERVERS_NAMESPACE": settings.servers_namespace,
            "TOKENS_FILE": str(tokens.write(folder / "controller-tokens.json", tokens.entry("test"))),
            "BULK_PER_MINUTE": "120",
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.killed = 0

    def start(self) -> None:
        """Start another one."""
        name = f"controller-{len(self.running) + self.killed}"
        self.running[name] = controller.start(name, self._variables, self._folder / f"{name}.log")

    def active(self) -> str | None:
        """The name of the active one that runs; None if there is none."""
        lease = self._kube.get(path("coordination.k8s.io/v1", self._namespace, "leases", NAME)) or {"spec": {}}
        name = str(lease["spec"].get("holderIdentity") or "").partition("/")[0]
        return name if name in self.running else None

    def kill_active(self) -> None:
        """Kill the active one, as when its container dies, and start another."""
        until(self.active, 40, lambda: logged(self._folder))
        process = self.running.pop(self.active() or "")
        process.kill()
        process.wait()
        self.killed += 1
        self.start()

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


@contextmanager
def controllers(settings: Settings, kubeconfig: str, folder: Path) -> Iterator[Controllers]:
    """Two controllers."""
    both = Controllers(settings, kubeconfig, folder)
    try:
        both.start()
        both.start()
        yield both
    finally:
        both.end()


def call(api: Served, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """The answer of a call that succeeds."""
    headers = {"Authorization": "Bearer test"}
    answer = requests.request(method, f"{api.url}/api/v1{path}", json=body, headers=headers, timeout=90)
    assert answer.ok, answer.text
    result: dict[str, Any] = answer.json()
    return result


def restart_through_kills(
    real: Interfaces, settings: Settings, kubeconfig: str, folder: Path, ids: list[int], kills: int, pause: float
) -> None:
    """Restart stopped servers in bulk while the active controller is killed again and again; each restarts once."""
    with serving(settings, kubeconfig, folder, "api") as api, controllers(settings, kubeconfig, folder) as pods:
        with ThreadPoolExecutor(4) as callers:
            answers = list(callers.map(lambda id: api.answer(Call("POST", body=STOPPED), id, 60), ids))
        assert {answer.status_code for answer in answers} == {201}
        until(pods.active, 40)
        operation = call(api, "POST", "/server/_bulk", {"ids": ids, "action": "restart"})
        for _ in range(kills):
            time.sleep(random.uniform(pause / 2, pause))
            pods.kill_active()

        def ended() -> bool:
            return call(api, "GET", f"/operation/{operation['id']}?wait=20")["state"] not in ("pending", "running")

        until(ended, 120 + len(ids))
        done = call(api, "GET", f"/operation/{operation['id']}")
        assert Counter(server["outcome"] for server in done["servers"]) == {"done": len(ids)}
        assert done["state"] == "done"
    # A write that was broken off, as by a kill or a busy API server, may be repeated: that is the same restart.
    for id in ids:
        assert statuses(real, id)[-1] == "deployed"
        assert len(restarts(settings, id)) == 1, logged(folder)


def restarts(settings: Settings, id: int) -> set[str]:
    """When the server was restarted, as all revisions of its release say."""
    revisions = Revisions(Kube(), settings.servers_namespace)
    releases = [revisions.read(revision) for revision in revisions.of(f"server-{id}")]
    return {release.values["restartedAt"] for release in releases if release and "restartedAt" in release.values}


def logged(folder: Path) -> str:
    """The last lines of the controllers."""
    return "\n".join(file.read_text()[-2000:] for file in folder.glob("*.log"))


def test_servers_are_restarted_once_although_the_controller_is_killed(
    real: Interfaces, real_settings: Settings, kubeconfig: str, new_id: Callable[[], int], tmp_path: Path
) -> None:
    """Another controller goes on within 20 seconds."""
    ids = [new_id() for _ in range(8)]
    restart_through_kills(real, real_settings, kubeconfig, tmp_path, ids, 1, 3)


@pytest.mark.long
def test_three_hundred_servers_are_restarted_once_through_kills(
    real: Interfaces, real_settings: Settings, kubeconfig: str, new_id: Callable[[], int], tmp_path: Path
) -> None:
    """Ten controllers die."""
    ids = [new_id() for _ in range(300)]
    restart_through_kills(real, real_settings, kubeconfig, tmp_path, ids, 10, 12)
