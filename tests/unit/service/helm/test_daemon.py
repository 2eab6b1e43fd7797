"""helm-daemon is started, asked, stopped and started again. The real program and a stand-in pass the same tests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from pyhelm3 import errors as helm_errors

from local import binaries
from local.paths import ROOT
from service.errors import ClusterUnavailable
from service.helm import command, daemon
from service.helm.daemon import Daemon, deadline
from service.kube.leases import now
from tests.support import loopback
from tests.support.processes import state_of
from tests.unit.service.helm.test_command import ends, fake_helm

FAKE = [sys.executable, "-m", "tests.support.fake_helm_daemon"]
UNINSTALL = {"do": "uninstall", "release": "server-1", "namespace": "games", "timeout": "30s"}
#: A machine that does much else.
SECONDS = 60


class Cluster:
    """A Kubernetes without anything in it; `silent` makes it answer nothing, `busy` that it be asked later."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.silent = False
        self.busy = False
        self.received = threading.Event()
        self.over = threading.Event()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster that KUBECONFIG leads to."""
    world = Cluster()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            world.requests.append(self.path)
            world.received.set()
            if world.silent:
                world.over.wait()
                self.close_connection = True
                return
            body = json.dumps({"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": []}).encode()
            self.send_response(429 if world.busy else 200)
            if world.busy:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with loopback.serving(Handler) as url:
        monkeypatch.setenv("KUBECONFIG", loopback.kubeconfig(tmp_path, url))
        yield world
        world.over.set()


@pytest.fixture(params=["stand-in", pytest.param("program", marks=pytest.mark.tools)])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line of both kinds."""
    monkeypatch.setattr(daemon, "SHORTEST_PAUSE", 0.05)
    return FAKE if request.param == "stand-in" else [str(binaries.helm_daemon())]


@asynccontextmanager
async def kept(program: list[str], changes: list[bool] | None = None) -> AsyncIterator[Daemon]:
    """The daemon, while it is kept running."""
    environment = {**command.environment(os.environ), "PYTHONPATH": str(ROOT)}
    changed: Callable[[bool], None] = (changes if changes is not None else []).append
    one = Daemon([*command.dying_with_us(), *program], environment, command.GRACE_SECONDS, changed)
    keeping = asyncio.ensure_future(one.keep())
    try:
        await until(lambda: one.runs)
        yield one
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


@contextmanager
def frozen(one: Daemon) -> Iterator[None]:
    """The daemon stands still within the context."""
    assert one._process is not None
    os.kill(one._process.pid, signal.SIGSTOP)
    while state_of(one._process.pid) != "T":
        time.sleep(0.001)
    try:
        yield
    finally:
        os.kill(one._process.pid, signal.SIGCONT)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 2 * SECONDS))


def test_a_failure_has_helms_words(cluster: Cluster, program: list[str]) -> None:
    """A release that does not exist is told apart, whichever way it is asked for."""

    async def test() -> None:
        async with kept(program) as one:
            with pytest.raises(helm_errors.ReleaseNotFoundError, match="release: not found") as error:
                await one.call(UNINSTALL)
            assert error.value.returncode == 1
        assert len(cluster.requests) == 1

    run(test())


def test_kubernetes_away_is_a_problem_of_that_kind(program: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    """As when helm itself finds nobody."""
    monkeypatch.setenv("KUBECONFIG", loopback.kubeconfig(tmp_path, "http://127.0.0.1:1"))

    async def test() -> None:
        async with kept(program) as one:
            with pytest.raises(helm_errors.Error) as error:
                await one.call(UNINSTALL)
        assert isinstance(command.problem(error.value), ClusterUnavailable)

    run(test())


def test_a_cancelled_call_sends_nothing_more(cluster: Cluster, program: list[str]) -> None:
    """When the cancelled call returns, no request is under way. Other calls go on, and later ones are taken."""
    cluster.silent = True

    async def test() -> None:
        async with kept(program) as one:
            first, second = (asyncio.ensure_future(one.call(UNINSTALL)) for _ in range(2))
            await until(lambda: len(cluster.requests) == 2)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert one.runs
            assert not second.done()
            assert len(cluster.requests) == 2
            cluster.silent = False
            with pytest.raises(helm_errors.ReleaseNotFoundError):
                await one.call(UNINSTALL)
            second.cancel()
            await asyncio.wait({second})

    run(test())


def test_a_call_whose_time_is_over_sends_nothing(cluster: Cluster, program: list[str]) -> None:
    """The Lease may be lost while this process is frozen: the daemon knows until when it may go on."""

    async def test() -> None:
        # That of a Lease that was lost.
        deadline.set(lambda: 0.0)
        async with kept(program) as one:
            with pytest.raises(helm_errors.Error, match="the time of the call is over") as error:
                await one.call(UNINSTALL)
        assert isinstance(command.problem(error.value), ClusterUnavailable)

    run(test())
    assert cluster.requests == []


def test_a_call_that_a_frozen_daemon_takes_too_late_sends_nothing(cluster: Cluster, program: list[str]) -> None:
    """Its time is over at the moment that was said, however long it has waited to be taken."""

    async def test() -> None:
        async with kept(program) as one:
            with frozen(one):
                over = now() + 0.5
                deadline.set(lambda: over)
                call = asyncio.ensure_future(one.call(UNINSTALL))
                await asyncio.sleep(1)
            with pytest.raises(helm_errors.Error, match="the time of the call is over"):
                await call

    run(test())
    assert cluster.requests == []


@pytest.mark.tools
def test_a_daemon_that_thaws_too_late_goes_no_further(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had sent one request, and Kubernetes has answered that it is to ask again, as client-go does."""
    monkeypatch.setattr(daemon, "SHORTEST_PAUSE", 0.05)
    cluster.busy = True

    async def test() -> None:
        async with kept([str(binaries.helm_daemon())]) as one:
            over = now() + 60
            deadline.set(lambda: over)
            call = asyncio.ensure_future(one.call(UNINSTALL))
            await until(lambda: cluster.requests)
            over = now() + 0.5
            await asyncio.sleep(0.2)  # It has been told so.
            with frozen(one):
                await asyncio.sleep(1.5)
            with pytest.raises(helm_errors.Error, match="the time of the call is over"):
                await call

    monkeypatch.setattr(daemon, "EXTEND_EVERY", 0.05)
    run(test())
    assert len(cluster.requests) == 1


def test_a_daemon_that_dies_fails_its_calls_and_comes_back(cluster: Cluster, program: list[str]) -> None:
    """A call that was under way fails, and is not sent again."""
    cluster.silent = True
    changes: list[bool] = []

    async def test() -> None:
        async with kept(program, changes) as one:
            call = asyncio.ensure_future(one.call(UNINSTALL))
            await until(lambda: cluster.requests)
            assert one._process is not None
            one._process.kill()
            with pytest.raises(helm_errors.Error) as error:
                await call
            assert error.value.returncode == -signal.SIGKILL
            assert len(cluster.requests) == 1
            await until(lambda: one.runs)
            cluster.silent = False
            with pytest.raises(helm_errors.ReleaseNotFoundError):
                await one.call(UNINSTALL)
        assert changes == [True, False, True, False]

    run(test())


def test_a_daemon_that_does_not_stop_a_call_is_killed(cluster: Cluster, program: list[str]) -> None:
    """A frozen one cannot answer."""
    cluster.silent = True

    async def test() -> None:
        async with kept(program) as one:
            call = asyncio.ensure_future(one.call(UNINSTALL))
            await until(lambda: cluster.requests)
            assert one._process is not None
            frozen = one._process
            frozen.send_signal(signal.SIGSTOP)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert frozen.returncode == -signal.SIGKILL
            await until(lambda: one.runs)

    run(test())


def test_it_dies_with_the_process_that_started_it(cluster: Cluster, program: list[str]) -> None:
    """Whether or not it sees that its input has ended."""
    code = (
        "import asyncio, os, sys\n"
        "from service.helm import command\n"
        "from service.helm.daemon import Daemon\n"
        "async def main():\n"
        "    environment = command.environment(os.environ) | {'PYTHONPATH': os.getcwd()}\n"
        "    one = Daemon([*command.dying_with_us(), *sys.argv[1:]], environment, 1)\n"
        "    asyncio.ensure_future(one.keep())\n"
        "    while not one.runs: await asyncio.sleep(0.01)\n"
        "    print(one._process.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, *program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        parent.kill()
        assert ends(pid, SECONDS)


@pytest.mark.parametrize("script", ["exit 3", "echo '{\"protocol\": 1}'; sleep 600", "echo no JSON; sleep 600"])
def test_what_is_no_daemon_is_not_asked(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is ended, and tried again after a pause."""
    monkeypatch.setattr(daemon, "SHORTEST_PAUSE", 0.5)
    executable = fake_helm(tmp_path, f"echo started >> {tmp_path}/starts; {script}")
    changes: list[bool] = []

    async def test() -> None:
        one = Daemon([executable], command.environment(os.environ), 1, changes.append)
        keeping = asyncio.ensure_future(one.keep())
        # It is cancelled in a pause: asyncio may hang if that happens while a process starts.
        await until(lambda: caplog.text.count("cannot be used") == 2)
        assert not one.runs
        keeping.cancel()
        await asyncio.wait({keeping})

    run(test())
    assert (tmp_path / "starts").read_text().split() == ["started"] * 2
    assert True not in changes


VALUES = {"server": {"options": {"motd": "😀 {{ .Values }}"}}}


def test_a_command_is_asked_of_the_daemon_while_it_runs(cluster: Cluster, tmp_path: Path) -> None:
    """An upgrade and an uninstall; all else, and everything without a daemon, is helm's."""
    executable = fake_helm(tmp_path, f'echo "$1" >> {tmp_path}/commands; cat > /dev/null; echo "{{}}"')

    async def test() -> None:
        async with kept(FAKE) as one:
            helm = command.HelmCommand(executable, one)
            for call in (
                helm.install_or_upgrade("server-1", "/chart", VALUES, **CALLED),
                helm.uninstall("server-1", namespace="games"),
            ):
                with pytest.raises(helm_errors.ReleaseNotFoundError):
                    await call
            assert not (tmp_path / "commands").exists()
            await helm.version()
            await helm.uninstall("server-1", namespace="games", keep_history=True)
        await helm.uninstall("server-1", namespace="games")

    run(test())
    assert (tmp_path / "commands").read_text().split() == ["version", "uninstall", "uninstall"]


CALLED: dict[str, Any] = {"namespace": "games", "create_namespace": False, "reset_values": True, "version": "0.1.0"}


def test_a_request_says_all_that_the_command_says() -> None:
    """Values are those that helm would read."""
    upgrade = (
        *("upgrade", "server-1", Path("/chart"), "--history-max", 3, "--install", "--output", "json"),
        *("--timeout", "30s", "--values", "-", "--namespace", "games", "--reset-values", "--version", "0.1.0"),
    )
    assert command.request(upgrade, b"{}") == {
        "do": "upgrade",
        "release": "server-1",
        "chart": "/chart",
        "history_max": 3,
        "timeout": "30s",
        "namespace": "games",
        "values": "{}",
        "force_conflicts": False,
    }
    forced = command.request((*upgrade[:12], "--force-conflicts", *upgrade[12:]), b"{}")
    assert forced is not None
    assert forced["force_conflicts"] is True
    assert command.request((*upgrade, "--wait"), b"{}") is None
    assert command.request(("uninstall", "server-1", "--timeout", "30s", "--namespace", "games"), None) == UNINSTALL
    assert command.request(("uninstall", "server-1", "--keep-history"), None) is None


@pytest.mark.tools
def test_the_programs_own_tests() -> None:
    """The tests beside its Go files."""
    result = binaries.go_with_flags_of_a_build("helm-daemon", "test")
    assert result.returncode == 0, result.stdout
