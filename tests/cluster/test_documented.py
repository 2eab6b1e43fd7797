"""The commands of README.md and docs/ are run here as they are written there.

Ids are replaced by those of the test's servers, and namespaces that the reader creates by the test's own. Helm's writes
to releases that all tests share are dry runs against the cluster's API server (`--dry-run=server`).
"""

import json
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.paths import ROOT
from service.tokens import parse
from tests.cluster.conftest import Cluster
from tests.docs.snippets import COMMANDS, block


def typed(script: str, folder: Path = ROOT) -> str:
    """Run the script and return what it prints. Raises AssertionError if it fails."""
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def dry(script: str) -> str:
    """The script with each `helm upgrade` as a dry run."""
    return re.sub(r"\bhelm upgrade( --install)?\b", r"helm upgrade\1 --dry-run=server", script)


def answers(printed: str) -> list[dict[str, object]]:
    """The JSON objects in what a script printed."""
    values, decoder = [], json.JSONDecoder()
    while printed := printed.strip():
        value, end = decoder.raw_decode(printed)
        values.append(value)
        printed = printed[end:]
    return values


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a namespace that the test creates. It is deleted at the end."""
    name = f"documented-{secrets.token_hex(4)}"
    yield name
    cluster.run("kubectl", "delete", "namespace", name, "--wait=false", "--ignore-not-found")


def test_the_api_is_called_as_written(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Each call in README.md, docs/api.md and docs/games.md succeeds."""
    readme, api, luanti = new_server(), new_server(), new_server()
    for script, calls in (
        (block("README.md", ". .local/env").replace("/server/2/", f"/server/{readme}/"), 4),
        (block("docs/api.md", ". .local/env").replace("4711", str(api)), 5),
        (block("docs/games.md", "curl -X POST").replace("/server/5/", f"/server/{luanti}/"), 1),
    ):
        printed = answers(typed(script))
        assert [answer["success"] for answer in printed] == [True] * calls, printed


def test_it_is_installed_as_written(cluster: Cluster, namespace: str) -> None:
    """By docs/operations.md, the API can read the tokens' Secret, and helm accepts each release."""
    secret = block("docs/operations.md", "kubectl create namespace gameserver-system")
    typed(secret.replace("gameserver-system", namespace))
    kept = cluster.run(
        *("kubectl", "-n", namespace, "get", "secret", "api-tokens", "-o", 'go-template={{index .data "tokens.json"}}')
    )
    tokens = parse(typed(f"base64 -d <<< {kept}"), "tokens.json")
    assert [(token.name, token.scopes) for token in tokens] == [("shop", frozenset({"read", "operate", "admin"}))]
    assert "Dry run complete" in typed(dry(block("docs/operations.md", "helm upgrade --install api")))
    for installed, charts in (("gameserver-sftp", 2), ("gameserver-disks", 1)):
        label, releases = block("docs/operations.md", f"kubectl create namespace {installed}").split("helm", 1)
        typed(label.replace(installed, namespace).replace("create namespace", "get namespace"))
        assert typed(dry(f"helm{releases}")).count("Dry run complete") == charts


def test_what_is_installed_is_changed_as_written(cluster: Cluster, tmp_path: Path) -> None:
    """docs/games.md adds a game to an installed API."""
    games = tmp_path / "my-games.yaml"
    games.write_text(block("docs/games.md", "# my-games.yaml"))
    script = dry(block("docs/games.md", "helm upgrade api")).replace("my-games.yaml", str(games))
    printed = typed(f". .local/env\n{script}")
    assert "teeworlds-ctf.values.yaml.j2" in printed
    assert "successfully rolled out" in printed


def test_what_is_installed_is_looked_at_as_written(cluster: Cluster) -> None:
    """docs/operations.md counts the node ports in use, and looks at the pools and for a metrics-server."""
    assert int(typed(block("docs/operations.md", "kubectl get services -A"))) >= 1
    (top,) = (command for command in COMMANDS if command.startswith("kubectl top"))
    assert "api-" in typed(top)
    heading, *rooms = typed(block("docs/operations.md", "kubectl -n gameserver-disks get")).splitlines()
    assert heading.split() == ["NODE", "CLASS", "ROOM"]
    assert {"node1", "node2"} <= {room.split()[0] for room in rooms}


def test_files_are_set_up_as_written(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """docs/sftp.md shows how to set host keys, read the log, and delete an account."""
    cluster.run("kubectl", "create", "namespace", namespace)
    typed(block("docs/sftp.md", "ssh-keygen").replace("gameserver-sftp", namespace), tmp_path)
    written = cluster.run("kubectl", "-n", namespace, "get", "secret", "sftp-host-key", "-o", "jsonpath={.data}")
    assert set(json.loads(written)) == {f"ssh_host_{kind}_key" for kind in ("ed25519", "ecdsa", "rsa")}
    # The log need not have a line of this server, so grep may find nothing.
    logs, _, search = block("docs/sftp.md", "kubectl -n gameserver-sftp logs").partition("|")
    lines = [json.loads(line.partition("] ")[2]) for line in typed(logs).splitlines()]
    assert all("event" in line for line in lines)
    assert search.strip() == "grep '\"server\": 4711'"
    (delete,) = (command for command in COMMANDS if "delete secret" in command)
    cluster.run("kubectl", "-n", namespace, "create", "secret", "generic", "server-4711")
    assert "deleted" in typed(delete.replace("gameserver-sftp", namespace))
