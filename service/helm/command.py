"""Runs helm, and translates its error messages into problems.

pyhelm3's own `Command` starts helm under /bin/sh, which outlives a cancelled call. This one starts helm itself:

- in a session of its own, so that a cancelled call also ends every process that helm has started: with SIGTERM (helm
  then marks the release as failed and exits), then with SIGKILL;
- behind `setpriv --pdeathsig KILL`, so that helm dies with the process that started it. The kernel sends the signal
  when the *thread* that forked ends; that is the event loop's thread, which lives as long as the process. A Python
  `preexec_fn` could do the same, but is not safe with threads;
- with its whole standard input in memory before it starts: helm would read a pipe that breaks half-way as "no values".
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import semver
import yaml
from pyhelm3 import Client, Command
from pyhelm3 import errors as helm_errors
from pyhelm3.models import Chart

from service import errors
from service.yamltext import as_yaml

log = logging.getLogger(__name__)

HISTORY = 3
TIMEOUT = "30s"
GRACE_SECONDS = 1.5  # Between SIGTERM and SIGKILL; part of leases.MARGIN.

_INHERITED = re.compile(r"^(PATH|HOME|KUBECONFIG|KUBERNETES_SERVICE_.*|(HTTPS?|NO)_PROXY|SSL_CERT_.*)$", re.IGNORECASE)


class HelmCommand(Command):  # type: ignore[misc]
    """Runs pyhelm3's command lines without a shell. Raises StartupError if a program is missing."""

    def __init__(self, executable: str = "helm") -> None:
        super().__init__(executable=executable, history_max_revisions=HISTORY, default_timeout=TIMEOUT)
        helm, wrapper = shutil.which(executable), shutil.which("setpriv")
        if not helm or not wrapper:
            raise errors.StartupError(f"{executable if not helm else 'setpriv (util-linux)'} is not on the PATH")
        self._prefix = [wrapper, "--pdeathsig", "KILL", "--", helm]
        self._environment = environment(os.environ)

    def arguments(self, command: list[Any]) -> list[str]:
        """The whole command line for one of pyhelm3's commands. It never contains secrets."""
        arguments = [*self._prefix, *map(str, command)]
        if command[0] == "upgrade":
            # The charts are validated at build time and in CI; at run time, validation would double an upgrade's time.
            # pyhelm3 0.5.8's own `disable_validation` splits the flag into letters.
            arguments.append("--disable-openapi-validation")
        return arguments

    async def run(self, command: list[Any], input: bytes | None = None) -> bytes:
        """Run helm and return its standard output. Raises one of pyhelm3's errors, which `problem` translates."""
        if input is not None:
            # pyhelm3 sends JSON, but helm's YAML parser refuses JSON's escapes of emojis.
            input = as_yaml(json.loads(input)).encode()
        stdin = _in_memory(input) if input is not None else asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *self.arguments(command),
                stdin=stdin,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env=self._environment,
            )
        finally:
            if input is not None:
                os.close(stdin)
        output = asyncio.ensure_future(process.communicate())
        try:
            stdout, stderr = await asyncio.shield(output)
        except asyncio.CancelledError:
            await _terminate(process, output)
            raise
        if process.returncode == 0:
            return stdout
        text = stderr.decode(errors="replace")
        kind = helm_errors.ReleaseNotFoundError if "release: not found" in text else helm_errors.Error
        # Standard output may contain Secrets of the manifest, so it is dropped.
        raise kind(process.returncode, b"", stderr)

    def client_version(self) -> semver.Version:
        """helm's version; pyhelm3 reads it once, when the client is created."""
        command = [*self._prefix, "version", "--template", "{{ .Version }}"]
        done = subprocess.run(command, capture_output=True, check=True, env=self._environment, timeout=30, text=True)
        return semver.Version.parse(done.stdout.removeprefix("v"))


def client(executable: str) -> Client:
    """pyhelm3's client. Raises StartupError if helm cannot be run."""
    command = HelmCommand(executable)
    try:
        return Client(command, executable=executable)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise errors.StartupError(f"{executable}: cannot be run as helm ({error})") from error


def chart(client: Client, path: Path) -> Chart:
    """The chart in the folder `path`, read once without a helm process. Raises StartupError if it is not a chart."""
    try:
        metadata = yaml.safe_load((path / "Chart.yaml").read_text())
        return Chart(client._command, ref=path.resolve(), metadata=metadata)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise errors.StartupError(f"{path}: not a Helm chart ({error})") from error


def environment(parent: Mapping[str, str]) -> dict[str, str]:
    """helm's environment.

    It has the variables that helm needs from `parent`, this process's environment, and folders that helm can write to,
    because a container's root is read-only.
    """
    folder = Path(tempfile.gettempdir()) / f"gameserver-api-helm-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    inherited = {name: value for name, value in parent.items() if _INHERITED.match(name)}
    own = {name: str(folder / name.lower()) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    # helm runs for a fifth of a second. Without garbage collection it takes a fifth less CPU, and 10 MiB more memory.
    go = {"GOGC": "off", "GOMEMLIMIT": "128MiB"}
    return {**inherited, **own, **go, "KUBECACHEDIR": str(folder / "kube")}


def problem(error: helm_errors.Error) -> errors.Problem:
    """The problem to report for an error of helm. helm's own message goes to the log only."""
    text = error.stderr.decode(errors="replace")
    for pattern, kind in _MESSAGES:
        if re.search(pattern, text, re.IGNORECASE):
            return kind()
    return errors.OperationFailed()


# helm's and Kubernetes' messages, and the problem for each; the first match counts.
_MESSAGES: list[tuple[str, type[errors.Problem]]] = [
    (r"failed to allocate a nodePort: range is full|no node ?ports? (left|available)", errors.NoNodePortLeft),
    (r"another operation \(install/upgrade/rollback\) is in progress", errors.OperationInProgress),
    # For example, two creates that count towards one quota: Kubernetes lets one of them win.
    (r"please apply your changes to the latest version|quota evaluat\w+ timed out", errors.ClusterContended),
    (
        r"cluster unreachable|connection (refused|reset)|no such host|i/o timeout|deadline exceeded|handshake timeout"
        r"|network is unreachable|no route to host|etcdserver|unexpected EOF|: EOF|http2: |server is currently unable"
        r"|too many requests|context canceled|request timed out|the server was unable to return a response",
        errors.ClusterUnavailable,
    ),
    (r"Apply failed with \d+ conflict", errors.FieldConflict),
    (
        r"execution error at|exceeded quota|admission webhook|is forbidden|don't meet the specifications of the schema"
        r"|is invalid|already exists|cannot be imported into the current release",
        errors.RefusedByCluster,
    ),
]


def _in_memory(content: bytes) -> int:
    """A file descriptor to read `content` from, without a file."""
    descriptor = os.memfd_create("values")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


async def _terminate(process: asyncio.subprocess.Process, output: asyncio.Future[Any]) -> None:
    """End helm and every process that it has started, and wait for them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
        await asyncio.wait({output}, timeout=GRACE_SECONDS)
        if output.done():
            break
    output.cancel()
