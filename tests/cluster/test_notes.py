"""What the charts of the API and of the disk driver promise after their installation."""

import json

from tests.cluster.conftest import Cluster


def test_the_api_answers_as_its_notes_say(cluster: Cluster) -> None:
    """The notes' commands end with a curl that shows that the API is alive. `helm test` agrees."""
    notes = cluster.run("helm", "get", "notes", "api", "-n", "gameserver-system")
    script = "\n".join(line.strip() for line in notes.splitlines() if line.startswith("  "))
    printed = cluster.run("bash", "-euo", "pipefail", "-c", script)
    assert json.loads(printed.splitlines()[-1]) == {"alive": True}
    cluster.run("helm", "test", "api", "-n", "gameserver-system", "--timeout", "60s")


def test_the_disk_drivers_notes_show_the_room_of_each_node(cluster: Cluster) -> None:
    """Their commands wait for the driver on every node, and show what it publishes."""
    notes = cluster.run("helm", "get", "notes", "disks", "-n", "gameserver-disks")
    script = "\n".join(line.strip() for line in notes.splitlines() if line.startswith("  "))
    printed = cluster.run("bash", "-euo", "pipefail", "-c", script)
    assert "successfully rolled out" in printed
    assert {"node1", "node2"} <= {line.split()[0] for line in printed.splitlines()}


def test_the_servers_namespace_enforces_restricted(cluster: Cluster) -> None:
    """The chart created it."""
    namespace = cluster.get("namespace", "gameservers")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert namespace["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
