"""Which nodes the local cluster has, and what is done to each."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from local import cluster, images, nodes, paths, steps


@pytest.fixture(autouse=True)
def own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of the test's own, none of which has ever been up."""
    monkeypatch.setattr(paths, "NODES", tmp_path / "nodes")
    monkeypatch.delenv("NODES", raising=False)


def _numbers() -> list[int]:
    return [node.number for node in cluster.wanted_nodes()]


@pytest.mark.parametrize(("setting", "numbers"), [(None, [1, 2]), ("", [1, 2]), ("1", [1]), ("3", [1, 2, 3])])
def test_a_cluster_has_as_many_nodes_as_asked_for(
    setting: str | None, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two, unless `NODES` says otherwise."""
    if setting is not None:
        monkeypatch.setenv("NODES", setting)
    assert _numbers() == numbers


@pytest.mark.parametrize("setting", ["0", "4", "two", "-1"])
def test_other_numbers_are_refused(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a message that says which there are."""
    monkeypatch.setenv("NODES", setting)
    with pytest.raises(steps.StepFailed, match="NODES must be 1, 2 or 3"):
        cluster.wanted_nodes()


def test_a_node_that_joined_once_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has disks: `NODES=1` later leaves none of them out."""
    for number in (1, 2):
        node = nodes.Node(number)
        node.folder.mkdir(parents=True)
        (node.folder / "joined").touch()
    monkeypatch.setenv("NODES", "1")
    assert _numbers() == [1, 2]


@pytest.mark.parametrize("count", [1, 2])
def test_each_node_is_started_loaded_joined_and_waited_for(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first gets the control plane, the others join it, and nothing is done to a node that isn't wanted."""
    done: list[str] = []
    monkeypatch.setenv("NODES", str(count))
    monkeypatch.setattr(images, "every_node", lambda _built: ["system"])
    monkeypatch.setattr(images, "control_plane", lambda _built: ["control plane"])
    monkeypatch.setattr(cluster, "load", lambda what: done.extend(f"{node.name}: load {what[node]}" for node in what))
    monkeypatch.setattr(nodes, "refuse_another_checkouts", lambda: None)
    monkeypatch.setattr(nodes, "running", dict)
    monkeypatch.setattr(nodes, "stop", lambda: None)
    monkeypatch.setattr(nodes, "start", lambda node, _built: done.append(f"{node.name}: start"))
    monkeypatch.setattr(nodes, "route", lambda nodes: done.append(f"route {len(nodes)}"))
    monkeypatch.setattr(cluster, "_control_plane", lambda node, _built: done.append(f"{node.name}: init"))
    monkeypatch.setattr(cluster, "_join", lambda node, first, _built: done.append(f"{node.name}: join {first.name}"))

    def kubectl(arguments: Sequence[object]) -> str:
        if arguments[0] == "wait":
            done.append(f"wait for {' '.join(map(str, arguments[3:]))}")
        return ""

    monkeypatch.setattr(cluster, "kubectl", kubectl)
    assert [node.number for node in cluster.up(Path("/built"))] == list(range(1, count + 1))

    names = [f"node{number}" for number in range(1, count + 1)]
    assert done == [
        *(f"{name}: start" for name in names),
        f"route {count}",
        "node1: load ['control plane', 'system']",
        *(f"{name}: load ['system']" for name in names[1:]),
        "node1: init",
        *(f"{name}: join node1" for name in names[1:]),
        f"wait for {' '.join(f'node/{name}' for name in names)}",
    ]
