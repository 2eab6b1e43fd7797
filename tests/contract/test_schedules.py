"""Runs of schedules through the API, a controller and helm; the active controller is killed in the middle of them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from tests.contract.replica import CREATE, Call, Served, serving
from tests.support.controller import start as start_controller
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

TAKEOVER_SECONDS = 30
PATH = "/schedule/nightly"
NIGHTLY = {"cron": "0 0 1 1 *", "steps": [{"restart": {}}, {"wait": 3}, {"stop": {}}]}


@dataclass
class Controller:
    """A process of the controller."""

    process: subprocess.Popen[bytes]
    log: Path

    def until_active(self) -> None:
        until(lambda: "is the active controller now" in self.log.read_text(), TAKEOVER_SECONDS, self.log.read_text)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def served(real_settings: Settings, kubeconfig: str, tmp_path: Path) -> Iterator[Served]:
    """The API."""
    with serving(real_settings, kubeconfig, tmp_path, "api") as served:
        yield served


@pytest.fixture
def controller(real_settings: Settings, kubeconfig: str, tmp_path: Path) -> Iterator[Callable[..., Controller]]:
    """Starts controllers, which end with the test."""
    with ExitStack() as stack:

        def start(name: str, helm: str = real_settings.helm, daemon: str = real_settings.helm_daemon) -> Controller:
            log = tmp_path / f"{name}.log"
            variables = {
                "KUBECONFIG": kubeconfig,
                "HELM": helm,
                "HELM_DAEMON": daemon,
                "SERVERS_NAMESPACE": real_settings.servers_namespace,
                "TOKENS_FILE": str(tmp_path / "tokens.json"),
            }
            process = start_controller(name, variables, log)
            controller = Controller(process, log)
            stack.callback(controller.kill)
            return controller

        yield start


def test_runs_through_kills(
    served: Served,
    controller: Callable[..., Controller],
    real_settings: Settings,
    kubeconfig: str,
    tmp_path: Path,
) -> None:
    """A run does its steps. One whose controller is killed in a step or in a wait is interrupted there.

    The next one comes: nothing is stuck, and no step of the broken one is done later.
    """
    id, proxy = 7001, Proxy(kubeconfig)

    def last_run() -> dict[str, Any]:
        run: dict[str, Any] = served.answer(Call("GET", PATH), id).json()["last_run"] or {}
        return run

    def run_now() -> None:
        assert served.answer(Call("POST", f"{PATH}/run"), id).status_code == 202

    def until_outcome(outcome: str, seconds: float = TAKEOVER_SECONDS) -> dict[str, Any]:
        until(lambda: last_run()["outcome"] == outcome, seconds, lambda: f"{last_run()}")
        return last_run()

    def wanted() -> str:
        state: str = served.answer(Call("GET"), id).json()["wanted"]
        return state

    with proxy.running():
        # The proxy does not pass on what a watch receives, so it is for helm and its daemon alone.
        wrapped = []
        for name, program in (("helm", real_settings.helm), ("helm-daemon", real_settings.helm_daemon)):
            wrapper = tmp_path / name
            wrapper.write_text(f'#!/bin/sh\nKUBECONFIG={proxy.kubeconfig(tmp_path)} exec {program} "$@"\n')
            wrapper.chmod(0o755)
            wrapped.append(str(wrapper))
        first = controller("first", *wrapped)
        first.until_active()
        second = controller("second")
        assert served.answer(CREATE, id).status_code == 201
        assert served.answer(Call("PUT", PATH, NIGHTLY), id).status_code == 201

        run_now()
        run = until_outcome("succeeded")
        assert (run["step"], run["asked_by"]) == ({"number": 3, "of": 3, "action": "stop"}, "test")
        assert wanted() == "stopped"

        proxy.hold(1, f"PATCH /apis/apps/v1/namespaces/{real_settings.servers_namespace}/statefulsets")
        run_now()
        assert proxy.holding.wait(TAKEOVER_SECONDS)
        first.kill()
    second.until_active()
    third = controller("third")
    assert until_outcome("interrupted")["step"] == {"number": 1, "of": 3, "action": "restart"}
    assert wanted() == "stopped"

    run_now()
    until(lambda: (last_run()["step"] or {}).get("number") == 2, TAKEOVER_SECONDS, lambda: f"{last_run()}")
    second.kill()
    third.until_active()
    run = until_outcome("interrupted")
    assert run["step"] == {"number": 2, "of": 3, "action": "wait"}
    assert run["reason"].endswith("ended in step 2 of 3 (wait), so nobody knows whether that step was done.")
    assert wanted() == "running"

    run_now()
    until_outcome("succeeded")
    assert wanted() == "stopped"
    assert served.answer(Call("DELETE", "/?disk=erase"), id).status_code == 200
