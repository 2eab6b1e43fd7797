"""What docs/operations.md says about installing a store for backups is done as it is written there."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from service.tokens import parse
from tests.charts.rendering import at, merged, render
from tests.cluster.conftest import Cluster
from tests.cluster.test_documented import dry, typed
from tests.docs.snippets import COMMANDS, block, blocks

PAGE = "docs/operations.md"


@pytest.fixture
def servers(cluster: Cluster) -> Iterator[str]:
    """The servers' namespace; `<name>-backups` is that of the backups, which the commands make."""
    name = f"documented-{secrets.token_hex(4)}"
    cluster.run("kubectl", "create", "namespace", name)
    yield name
    for namespace in (name, f"{name}-backups"):
        cluster.run("kubectl", "delete", "namespace", namespace, "--wait=false", "--ignore-not-found")


def test_a_store_is_installed_as_written(cluster: Cluster, servers: str, tmp_path: Path) -> None:
    """The Secrets get their files in both namespaces, and the chart takes the values of each kind of store."""

    def files(namespace: str, name: str) -> set[str]:
        found = cluster.run("kubectl", "-n", namespace, "get", "secret", name, "-o", "jsonpath={.data}")
        return set(json.loads(found))

    typed(block(PAGE, "openssl rand -base64 48 > recovery-key").replace("gameservers", servers), tmp_path)
    assert files(f"{servers}-backups", "backup-recovery") == {"password"}
    # There is no server whose key it could get.
    scan = "ssh-keyscan() { echo 'backup.example.com ssh-ed25519 AAAA'; }\n"
    for first, before, expected in (
        ("cat > credentials <<END", "ACCESS_KEY=a SECRET_KEY=b\n", {"credentials"}),
        ("ssh-keygen -t ed25519", scan, {"id_ed25519", "known_hosts"}),
    ):
        typed(before + block(PAGE, first).replace("gameservers", servers), tmp_path)
        for namespace in (servers, f"{servers}-backups"):
            assert files(namespace, "backup-store") == expected
            cluster.run("kubectl", "-n", namespace, "delete", "secret", "backup-store")
    typed(
        f"kubectl apply --dry-run=server -f - <<END\n{block(PAGE, 'apiVersion: v1').replace('gameservers', servers)}END"
    )
    needed = {"tokens": {"existingSecret": "a"}, "backups": {"recoveryKey": {"existingSecret": "backup-recovery"}}}
    written = [snippet.text for snippet in blocks(PAGE) if snippet.first == "# store.yaml"]
    kinds = []
    for text in written:
        deployment = render("api", merged(needed, yaml.safe_load(text)))["Deployment/api"]
        environment: list[dict[str, Any]] = at(deployment, "spec.template.spec.containers.0.env")
        settings = Settings.from_environment({each["name"]: each.get("value", "") for each in environment})
        assert settings.backup_store
        kinds.append(settings.backup_store["kind"])
    assert kinds == ["s3", "sftp", "folder"]
    (tmp_path / "store.yaml").write_text(written[0])
    install = block(PAGE, "helm upgrade api charts/api -n gameserver-system --reuse-values")
    assert "Dry run complete" in typed(dry(install).replace("store.yaml", str(tmp_path / "store.yaml")))


def test_the_jobs_are_looked_at_as_written(cluster: Cluster) -> None:
    """There need not be any."""
    looked, _, _ = block(PAGE, "kubectl -n gameservers get jobs -l gameserver/backup-job").partition(
        "kubectl -n gameservers logs"
    )
    typed(looked)
    (command,) = (command for command in COMMANDS if command.startswith("kubectl get jobs"))
    typed(command)


def test_a_token_for_a_recovery_is_made_as_written(cluster: Cluster, servers: str) -> None:
    """The Job gets the token, and the printed entry is one of `tokens.json`."""
    cluster.run("kubectl", "create", "namespace", f"{servers}-backups")
    printed = typed(block(PAGE, "token=$(openssl rand -base64 32)").replace("gameservers", servers))
    entry = printed.splitlines()[0]
    (token,) = parse(f'{{"tokens": [{entry}]}}', "tokens.json")
    assert token.scopes == {"recover"}
