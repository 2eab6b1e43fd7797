"""The packaged chart gameserver on the real cluster, without the API, in a namespace that enforces "restricted"."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.yamltext import as_yaml
from tests.charts.rendering import CHARTS

pytestmark = pytest.mark.cluster

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run() -> Run:
    """Run a command; returns its output, and fails with its complaints."""
    assert "KUBECONFIG" in os.environ, "no cluster: `make test` brings one up"

    def run(*command: Any, stdin: str = "", fails: bool = False) -> str:
        result = subprocess.run(
            [str(part) for part in command], input=stdin, capture_output=True, text=True, check=False
        )
        assert (result.returncode != 0) is fails, f"{command}: {result.stdout}{result.stderr}"
        return result.stderr if fails else result.stdout

    return run


@pytest.fixture(scope="module")
def image(run: Run) -> dict[str, str]:
    """The Minecraft image of the local API."""
    values = json.loads(run("helm", "get", "values", "api", "-n", "gameserver-system", "-o", "json"))
    image: dict[str, str] = values["serverValues"]["games"]["minecraft"]["image"]
    return image


@pytest.fixture(scope="module")
def namespace(run: Run) -> Iterator[str]:
    """A namespace for this module that enforces the standard."""
    name = f"chart-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    run("kubectl", "create", "-f", "-", stdin=json.dumps(namespace))
    yield name
    run("kubectl", "delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def package(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart's package, outside the chart's folder."""
    folder = tmp_path_factory.mktemp("package")
    run("helm", "package", CHARTS / "gameserver", "--destination", folder)
    return next(folder.glob("gameserver-*.tgz"))


def upgrade(run: Run, package: Path, namespace: str, values: dict[str, Any], *, fails: bool = False) -> str:
    """`helm upgrade --install` of server 7: its present values, overridden by `values`."""
    command = ["helm", "upgrade", "--install", "server-7", package, "-n", namespace]
    return run(*command, "--reuse-values", "--values", "-", stdin=as_yaml(values), fails=fails)


def what_stays(run: Run, namespace: str) -> dict[str, Any]:
    """What no upgrade may change: the node ports by name, the password, and the claim's uid and class."""
    objects = json.loads(run("kubectl", "get", "service,secret,pvc", "-n", namespace, "-o", "json"))["items"]
    kept: dict[str, Any] = {}
    for one in objects:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Service":
            kept[name] = {port["name"]: port.get("nodePort") for port in one["spec"]["ports"]}
        elif one["kind"] == "PersistentVolumeClaim":
            kept[name] = (one["metadata"]["uid"], one["spec"]["storageClassName"], one["spec"]["accessModes"])
        elif name == "Secret/server-7-rcon":
            kept[name] = one["data"]["password"]
    return kept


def test_a_server_by_hand(run: Run, package: Path, namespace: str, image: dict[str, str]) -> None:
    """Install, test, run the notes' commands, stop, change, uninstall, and install again on the same disk."""
    motd = "$(HOME) {{ .Release.Name }} $$x 'q' \N{ROCKET}"
    values = {
        "ramGb": 1,
        "diskGb": 2,
        "image": image,
        "environment": {"EULA": "TRUE", "MOTD": motd},
        "ports": [{"name": "primary", "port": 25565, "protocol": "both"}],
        # The local image has no mc-monitor; its mc-health asks whom SERVER_HOST names.
        "test": {"commands": {"minecraft": ["mc-health"]}},
    }
    upgrade(run, package, namespace, values)
    run("helm", "test", "server-7", "-n", namespace, "--timeout", "120s")
    assert run("kubectl", "exec", "server-7-0", "-n", namespace, "--", "printenv", "MOTD") == f"{motd}\n"

    first = what_stays(run, namespace)
    ports = first["Service/server-7"]
    assert ports["primary"] == ports["primary-udp"]
    assert ports.keys() == {"primary", "primary-udp", "rcon"}
    notes = run("helm", "get", "notes", "server-7", "-n", namespace)
    commands = [line.strip() for line in notes.splitlines() if line.startswith("  kubectl")]
    said = [run("bash", "-euo", "pipefail", "-c", command) for command in commands]
    assert "pod/server-7-0" in said[0]
    assert said[1] == str(ports["primary"])
    assert re.fullmatch("[A-Za-z0-9]{32}", said[2])

    upgrade(run, package, namespace, {"replicas": 0})
    assert what_stays(run, namespace) == first
    other = {"storage": {"className": "other", "accessMode": "ReadWriteMany"}, "networkPolicy": {"enabled": True}}
    upgrade(run, package, namespace, other)
    assert what_stays(run, namespace) == first
    refused = upgrade(run, package, namespace, {"diskGb": 1}, fails=True)
    assert "diskGb is 1, but the disk already has 2Gi and cannot shrink" in refused

    run("helm", "uninstall", "server-7", "-n", namespace)
    claim = "PersistentVolumeClaim/server-7"
    assert what_stays(run, namespace) == {claim: first[claim]}
    upgrade(run, package, namespace, {**values, "replicas": 0})
    again = what_stays(run, namespace)
    assert again[claim] == first[claim]
    assert again["Secret/server-7-rcon"] != first["Secret/server-7-rcon"]
