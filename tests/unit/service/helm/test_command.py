"""helm is started without a shell, stopped with all its processes, and its errors are translated."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyhelm3 import errors as helm_errors

from local.paths import ROOT
from service.errors import (
    ClusterContended,
    ClusterUnavailable,
    FieldConflict,
    NoNodePortLeft,
    OperationFailed,
    OperationInProgress,
    Problem,
    RefusedByCluster,
    StartupError,
)
from service.helm import command as helm
from tests.support.processes import alive
from tests.support.waiting import until


def fake_helm(folder: Path, script: str) -> str:
    """A program that runs in place of helm."""
    path = folder / "helm"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def pid_in(file: Path) -> int:
    until(lambda: file.exists() and file.read_text().strip())
    return int(file.read_text())


def ends(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_the_command_line_has_neither_shell_nor_values(tmp_path: Path) -> None:
    """Only a release, a chart and flags; the values arrive over standard input."""
    executable = fake_helm(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/args; cat > {tmp_path}/stdin; echo "{{}}"')
    command = helm.HelmCommand(executable)
    values = {"server": {"options": {"motd": "$(touch /tmp/x) `id` '\"\n{{ .Values }} 😀" * 10_000}}}
    asyncio.run(command.install_or_upgrade("server-1", "/chart", values, namespace="games", create_namespace=False))
    assert yaml.safe_load((tmp_path / "stdin").read_text()) == values
    assert (tmp_path / "args").read_text().split("\n") == [
        *["upgrade", "server-1", "/chart", "--history-max", "3", "--install", "--output", "json"],
        *["--timeout", "30s", "--values", "-", "--namespace", "games", "--disable-openapi-validation", ""],
    ]


@pytest.mark.parametrize("force", [False, True])
def test_an_upgrade_that_kubernetes_would_refuse_is_not_begun(tmp_path: Path, force: bool) -> None:
    """What helm would write is shown to Kubernetes first; a failure has the same form as helm's own."""
    command_line = f'echo "$@" >> {tmp_path}/commands; cat >> {tmp_path}/values; echo \'{{"manifest": "a"}}\''
    refusals, tried = iter(["Service server-1: no", ""]), []

    def trial(release: Mapping[str, Any], force_conflicts: bool) -> str:
        tried.append((release, force_conflicts))
        return next(refusals)

    command = helm.HelmCommand(fake_helm(tmp_path, command_line), trial=trial)

    def upgrade() -> None:
        values = {"ramGb": 2}
        asyncio.run(command.install_or_upgrade("server-1", "/c", values, create_namespace=False, force_conflicts=force))

    with pytest.raises(helm_errors.Error) as raised:
        upgrade()
    assert raised.value.stderr == b"Error: UPGRADE FAILED: Service server-1: no\n"
    upgrade()
    asyncio.run(command.uninstall("server-1"))
    assert tried == [({"manifest": "a"}, force)] * 2
    flags = [words.split()[-1] for words in (tmp_path / "commands").read_text().splitlines() if "upgrade" in words]
    dry, real = "--dry-run=server", "--disable-openapi-validation"
    assert flags == [real] * 3
    assert [dry in words for words in (tmp_path / "commands").read_text().splitlines()] == [True, True, False, False]
    assert (tmp_path / "values").read_text() == '{"ramGb": 2}' * 3


def test_empty_values_are_sent_as_an_empty_mapping(tmp_path: Path) -> None:
    """Standard input is `{}`, not empty."""
    command = helm.HelmCommand(fake_helm(tmp_path, f'cat > {tmp_path}/stdin; echo "{{}}"'))
    asyncio.run(command.install_or_upgrade("server-1", "/chart", {}))
    assert (tmp_path / "stdin").read_text() == "{}"


def test_helm_inherits_only_the_variables_that_it_needs(tmp_path: Path) -> None:
    """Those that locate Kubernetes, and folders of its own, but none of the API's settings or secrets."""
    parent = {
        "PATH": "/bin",
        "KUBECONFIG": "/k",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "https_proxy": "http://proxy",
        "TOKENS_FILE": "/t",
        "HELM_KUBETOKEN": "x",
        "HELM_DEBUG": "1",
    }
    environment = helm.environment(parent)
    inherited = {name: value for name, value in environment.items() if name in parent}
    needed = ("PATH", "KUBECONFIG", "KUBERNETES_SERVICE_HOST", "https_proxy")
    assert inherited == {name: parent[name] for name in needed}
    own = {"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECACHEDIR", "GOGC", "GOMEMLIMIT"}
    assert set(environment) - set(inherited) == own


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("trap", ["", "trap '' TERM;"])
def test_a_cancelled_call_ends_all_processes_of_helm(tmp_path: Path, trap: str, early: bool) -> None:
    """Also those that helm has started, and a helm that ignores SIGTERM; also before asyncio knows that helm runs."""
    script = f"{trap} sleep 60 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/self; wait; sleep 60"
    command = helm.HelmCommand(fake_helm(tmp_path, script))

    async def cancelled() -> None:
        task = asyncio.ensure_future(command.run(["upgrade"], b"{}"))
        if early:
            # The call starts helm, and hears nothing of it yet.
            for _ in range(2):
                await asyncio.sleep(0)
            pid_in(tmp_path / "self")
        else:
            await asyncio.to_thread(pid_in, tmp_path / "self")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 30)

    asyncio.run(cancelled())
    assert ends(pid_in(tmp_path / "self"), 5)
    assert ends(pid_in(tmp_path / "child"), 5)


def test_helm_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    """A killed worker's helm dies too, although it has a session of its own."""
    executable = fake_helm(tmp_path, f"echo $$ > {tmp_path}/self; exec sleep 60")
    program = (
        "import asyncio, threading, sys\n"
        "from service.helm import command as helm\n"
        "command = helm.HelmCommand(sys.argv[1])\n"
        "loop = asyncio.new_event_loop()\n"
        "threading.Thread(target=loop.run_forever, daemon=True).start()\n"
        "asyncio.run_coroutine_threadsafe(command.run(['upgrade'], b'{}'), loop).result()\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", program, executable], cwd=ROOT)
    pid = pid_in(tmp_path / "self")
    assert os.getsid(pid) != os.getsid(worker.pid)
    worker.kill()
    worker.wait()
    assert ends(pid, 5)


def test_a_failure_does_not_contain_helms_standard_output(tmp_path: Path) -> None:
    """A manifest on standard output contains secrets."""
    command = helm.HelmCommand(fake_helm(tmp_path, "echo password; echo 'Error: release: not found' >&2; exit 1"))
    with pytest.raises(helm_errors.ReleaseNotFoundError) as error:
        asyncio.run(command.run(["uninstall", "server-1"]))
    assert (error.value.stdout, error.value.stderr) == (b"", b"Error: release: not found\n")


def test_without_helm_the_api_does_not_start(tmp_path: Path) -> None:
    """The message names the program that cannot be run."""
    with pytest.raises(StartupError, match="no-such-helm"):
        helm.client("no-such-helm")
    with pytest.raises(StartupError, match="cannot be run"):
        helm.client(fake_helm(tmp_path, "exit 3"))
    with pytest.raises(StartupError, match="not a Helm chart"):
        helm.chart(helm.client(fake_helm(tmp_path, "printf v4.1.4")), tmp_path)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Service is invalid: failed to allocate a nodePort: range is full", NoNodePortLeft),
        ("UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress", OperationInProgress),
        ('kubernetes cluster unreachable: Get "https://h/version": dial tcp: connection refused', ClusterUnavailable),
        ("etcdserver: request timed out", ClusterUnavailable),
        ("net/http: TLS handshake timeout", ClusterUnavailable),
        ("Error: context canceled", ClusterUnavailable),
        (
            'create: failed to create: Operation cannot be fulfilled on resourcequotas "all": the object has been '
            "modified; please apply your changes to the latest version and try again",
            ClusterContended,
        ),
        ("Internal error occurred: resource quota evaluation timed out", ClusterContended),
        ('Apply failed with 1 conflict: conflict with "kubectl": .spec.replicas', FieldConflict),
        ("values don't meet the specifications of the schema(s) in the following chart(s)", RefusedByCluster),
        ('pods "x" is forbidden: exceeded quota: small', RefusedByCluster),
        ("execution error at (gameserver/templates/service.yaml:3:4): no port is called primary", RefusedByCluster),
        ("UPGRADE FAILED: Service server-1: object is being deleted", OperationInProgress),
        ("something new", OperationFailed),
    ],
)
def test_helms_messages_become_problems(message: str, kind: type[Problem]) -> None:
    """None of them repeats helm's message."""
    problem = helm.problem(helm_errors.Error(1, b"", message.encode()))
    assert type(problem) is kind
    assert message not in problem.detail
