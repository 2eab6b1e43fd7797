"""Programs that the tests run: kubectl and helm, scripts on nodes and in pods."""

import json
import subprocess

from local import nodes


def run(*command: str, stdin: str | None = None, timeout: float | None = None) -> str:
    """Run a command and return what it prints.

    Raises:
        AssertionError: it failed; the message has its stderr.
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


def on_node(node: str, script: str) -> str:
    """Run a script as root on the node itself, outside its pods, and return what it prints."""
    entered = next(each for each in (nodes.Node(number) for number in nodes.running()) if each.name == node)
    return subprocess.run(nodes.enter(entered, ["sh", "-c", script]), check=True, capture_output=True, text=True).stdout


def pod_on(node: str, namespace: str, name: str) -> str:
    """The name of the pod that a DaemonSet has on a node; `name` is its label `app.kubernetes.io/name`."""
    selector = f"app.kubernetes.io/name={name}"
    pods = json.loads(run("kubectl", "get", "pods", "-n", namespace, "-l", selector, "-o", "json"))["items"]
    return next(
        str(pod["metadata"]["name"])
        for pod in pods
        if pod["spec"].get("nodeName") == node and "deletionTimestamp" not in pod["metadata"]
    )
