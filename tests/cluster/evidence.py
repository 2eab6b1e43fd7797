"""What the cluster shows when a test fails: pods, events and log lines, bounded in length and time."""

import subprocess
from collections.abc import Iterator, Sequence

_SERVERS, _API, _SFTP = "gameservers", "gameserver-system", "gameserver-sftp"
#: A failing test shows this many of its servers, and this many lines of each log and list.
_SHOWN, _LINES = 5, 40


def of_cluster() -> Iterator[tuple[str, str]]:
    """Titles and texts: all pods, the last events of the servers' namespace, the API's last log lines."""
    yield "pods", _kubectl("get", "pods", "-A", "-o", "wide")
    yield "events of the servers", _kubectl("-n", _SERVERS, "get", "events", "--sort-by=.lastTimestamp")
    selector = "app.kubernetes.io/component=api"
    logs = ("-n", _API, "logs", "-l", selector, "--prefix", f"--tail={_LINES}", "--ignore-errors")
    yield "the API's logs", _kubectl(*logs, "--max-log-requests=10", lines=10 * _LINES)


def of_servers(servers: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Titles and texts: of the first few servers the pod, its last log lines, its events, and the other objects."""
    for server in servers[:_SHOWN]:
        pod = f"server-{server}-0"
        commands = (
            ("describe", "pod", pod),
            ("logs", pod, f"--tail={_LINES}"),
            ("get", "events", "--sort-by=.lastTimestamp", f"--field-selector=involvedObject.name={pod}"),
            ("get", "statefulset,service,pvc,secret", "-l", f"gameserver/id={server}"),
        )
        shown = [_kubectl("-n", _SERVERS, *command, lines=4 * _LINES) for command in commands]
        yield f"server {server}", "\n".join(shown)


def of_agents() -> tuple[str, str]:
    """Title and text: the last log lines of the SFTP agents."""
    logs = ("-n", _SFTP, "logs", "daemonset/sftp", "--all-pods", "--prefix", f"--tail={_LINES}")
    return "the SFTP agents' logs", _kubectl(*logs, lines=10 * _LINES)


def _kubectl(*arguments: str, lines: int = _LINES) -> str:
    """The last lines that kubectl prints, or why it prints none: Kubernetes may be away in a test that fails."""
    try:
        done = subprocess.run(
            ("kubectl", "--request-timeout=3s", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "\n".join(done.stdout.splitlines()[-lines:])
