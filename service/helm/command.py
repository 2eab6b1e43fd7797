"""Runs helm, or lets helm-daemon do the same, and translates error messages into problems.

pyhelm3's own `Command` starts helm under /bin/sh, which outlives a cancelled call. This one gives an upgrade or an
uninstall to the daemon (`daemon`), if it runs, and starts helm itself otherwise:

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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import semver
import yaml
from pyhelm3 import Client, Command
from pyhelm3 import errors as helm_errors
from pyhelm3.models import Chart

from service import errors
from service.helm.daemon import Daemon, failure
from service.yamltext import as_yaml

log = logging.getLogger(__name__)

HISTORY = 3
TIMEOUT = "30s"
GRACE_SECONDS = 1.5  # Between SIGTERM and SIGKILL; part of leases.MARGIN.
DAEMON_MEMORY = "100MiB"

Trial = Callable[[Mapping[str, Any], bool], str]

_INHERITED = re.compile(r"^(PATH|HOME|KUBECONFIG|KUBERNETES_SERVICE_.*|(HTTPS?|NO)_PROXY|SSL_CERT_.*)$", re.IGNORECASE)


class HelmCommand(Command):  # type: ignore[misc]
    """Runs pyhelm3's command lines without a shell. Raises StartupError if a program is missing.

    Args:
        executable: helm.
        daemon: Carries out upgrades and uninstalls while it runs; None for helm alone.
        trial: Takes a release that is to be upgraded, and whether conflicts are to be forced; returns why Kubernetes
            would refuse a part of it, or "". helm-daemon does that itself.
    """

    def __init__(self, executable: str = "helm", daemon: Daemon | None = None, trial: Trial | None = None) -> None:
        super().__init__(executable=executable, history_max_revisions=HISTORY, default_timeout=TIMEOUT)
        helm = shutil.which(executable)
        if not helm:
            raise errors.StartupError(f"{executable} is not on the PATH")
        self._prefix = [*dying_with_us(), helm]
        self._environment = environment(os.environ)
        self._daemon = daemon
        self._trial = trial

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
        if self._daemon is not None and self._daemon.runs and (asked := request(command, input)) is not None:
            return await self._daemon.call(asked)
        if self._trial is not None and command[0] == "upgrade":
            rendered = json.loads(await self._process([*command, "--dry-run=server"], input))
            if refusals := await asyncio.to_thread(self._trial, rendered, _FORCE in command):
                raise failure(1, f"Error: UPGRADE FAILED: {refusals}\n".encode())
        return await self._process(command, input)

    async def _process(self, command: list[Any], input: bytes | None) -> bytes:
        # If its start were cancelled, asyncio would kill helm at once, and helm alone.
        starting = asyncio.ensure_future(self._started(command, input))
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            process = await starting
            await _terminate(process, asyncio.ensure_future(process.communicate()))
            raise
        output = asyncio.ensure_future(process.communicate())
        try:
            stdout, stderr = await asyncio.shield(output)
        except asyncio.CancelledError:
            await _terminate(process, output)
            raise
        if process.returncode == 0:
            return stdout
        raise failure(process.returncode, stderr)

    async def _started(self, command: list[Any], input: bytes | None) -> asyncio.subprocess.Process:
        stdin = _in_memory(input) if input is not None else asyncio.subprocess.DEVNULL
        try:
            return await asyncio.create_subprocess_exec(
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

    def client_version(self) -> semver.Version:
        """helm's version; pyhelm3 reads it once, when the client is created."""
        command = [*self._prefix, "version", "--template", "{{ .Version }}"]
        done = subprocess.run(command, capture_output=True, check=True, env=self._environment, timeout=30, text=True)
        return semver.Version.parse(done.stdout.removeprefix("v"))


def client(executable: str, daemon: Daemon | None = None, trial: Trial | None = None) -> Client:
    """pyhelm3's client. Raises StartupError if helm cannot be run."""
    command = HelmCommand(executable, daemon, trial)
    try:
        return Client(command, executable=executable)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise errors.StartupError(f"{executable}: cannot be run as helm ({error})") from error


def daemon(executable: str, changed: Callable[[bool], None]) -> Daemon | None:
    """The daemon that `executable` is; None if the name is empty, or if there is no such program.

    `changed` is called with whether it runs, whenever that changes, if there is to be one at all.
    """
    if not executable:
        return None
    changed(False)
    program = shutil.which(executable)
    if program is None:
        log.warning("%s is not on the PATH: each write will start a helm process", executable)
        return None
    # It idles at 36 MiB. The garbage collector runs less often than it would by itself, which saves CPU time.
    go = {"GOGC": "400", "GOMEMLIMIT": DAEMON_MEMORY}
    return Daemon([*dying_with_us(), program], {**environment(os.environ), **go}, GRACE_SECONDS, changed)


def dying_with_us() -> list[str]:
    """What to put in front of a command line, so that its process dies with the thread that starts it."""
    wrapper = shutil.which("setpriv")
    if wrapper is None:
        raise errors.StartupError("setpriv (util-linux) is not on the PATH")
    return [wrapper, "--pdeathsig", "KILL", "--"]


def request(command: Sequence[Any], values: bytes | None) -> dict[str, Any] | None:
    """The request to the daemon for one of pyhelm3's commands; None if it is another command, or has other flags."""
    words = [str(word) for word in command if word != _FORCE]
    for pattern in _REQUESTS:
        if (found := _matched(words, pattern)) is not None:
            break
    else:
        return None
    found.pop("version", None)  # Of a chart in a folder there is one version only.
    asked: dict[str, Any] = {"do": words[0], **found}
    if words[0] == "upgrade":
        asked |= {"history_max": int(found["history_max"]), "values": (values or b"").decode()}
        asked["force_conflicts"] = _FORCE in command
    return asked


_FORCE = "--force-conflicts"
_UPGRADE = (
    *("upgrade", "{release}", "{chart}", "--history-max", "{history_max}", "--install", "--output", "json"),
    *("--timeout", "{timeout}", "--values", "-", "--namespace", "{namespace}", "--reset-values"),
)
# Only what pyhelm3 is asked for in client.py: whatever else it may be asked for is helm's.
_REQUESTS = (
    (*_UPGRADE, "--version", "{version}"),
    _UPGRADE,
    ("uninstall", "{release}", "--timeout", "{timeout}", "--namespace", "{namespace}"),
)


def _matched(words: Sequence[str], pattern: Sequence[str]) -> dict[str, Any] | None:
    """The words at the places of a pattern's names; None if another word differs."""
    if len(words) != len(pattern):
        return None
    named: dict[str, Any] = {}
    for word, expected in zip(words, pattern, strict=True):
        if expected.startswith("{"):
            named[expected.strip("{}")] = word
        elif word != expected:
            return None
    return named


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


def _ends() -> errors.Problem:
    return errors.OperationInProgress(
        "Somebody has deleted an object of the server, which is not gone yet. It is made again after that.",
        retry_after=5,
    )


# helm's and Kubernetes' messages, and the problem for each; the first match counts.
_MESSAGES: list[tuple[str, Callable[[], errors.Problem]]] = [
    (r"failed to allocate a nodePort: range is full|no node ?ports? (left|available)", errors.NoNodePortLeft),
    (r"object is being deleted", _ends),
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
