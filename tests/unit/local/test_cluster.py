"""Which nodes the local cluster has, and what is done to each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from local import binaries, cluster, deploy, images, nodes, paths, steps


@pytest.fixture(autouse=True)
def own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of the test's own, none of which has ever been up."""
    monkeypatch.setattr(paths, "NODES", tmp_path / "nodes")
    monkeypatch.delenv("NODES", raising=False)
    monkeypatch.delenv("DISKS", raising=False)


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
    monkeypatch.setattr(nodes, "ensure_pool", lambda node: done.append(f"{node.name}: pool"))
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
        *(f"{name}: pool" for name in names),
        "node1: load ['control plane', 'system']",
        *(f"{name}: load ['system']" for name in names[1:]),
        "node1: init",
        *(f"{name}: join node1" for name in names[1:]),
        f"wait for {' '.join(f'node/{name}' for name in names)}",
    ]


@pytest.mark.parametrize(
    ("setting", "driver", "local_path"),
    [(None, True, "false"), ("", True, "false"), ("gameserver-disks", True, "false"), ("local-path", False, "true")],
)
def test_one_class_is_the_default_and_the_other_is_not(
    setting: str | None, driver: bool, local_path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both classes say which they are, so that an existing cluster is switched too."""
    applied: list[dict[str, Any]] = []
    if setting is not None:
        monkeypatch.setenv("DISKS", setting)

    def kubectl(arguments: Sequence[object], stdin: str | None = None) -> str:
        if arguments[0] == "apply" and stdin:
            applied.extend(yaml.safe_load_all(stdin))
        return ""

    monkeypatch.setattr(cluster, "kubectl", kubectl)
    monkeypatch.setattr(cluster, "load", lambda _images: None)
    monkeypatch.setattr(images, "addons", list)
    monkeypatch.setattr(binaries, "snapshot_kinds", list)
    cluster.addons([])
    (manifest,) = (manifest for manifest in applied if manifest["kind"] == "StorageClass")
    assert manifest["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": local_path}

    installed: dict[str, Any] = {}
    monkeypatch.setattr(deploy, "_kubectl", lambda *_arguments: None)
    monkeypatch.setattr(deploy, "_install", lambda *arguments: installed.update(arguments[-1]))
    deploy.disks(tmp_path, {"gameserver-disk-driver": images.Image("localhost/gameserver-disk-driver:key", tmp_path)})
    assert installed["storageClass"] == {"default": driver}


def test_another_kind_of_disks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started."""
    monkeypatch.setenv("DISKS", "nfs")
    monkeypatch.setattr(nodes, "refuse_another_checkouts", lambda: None)
    with pytest.raises(steps.StepFailed, match="DISKS must be gameserver-disks or local-path, not 'nfs'"):
        cluster.up(Path("/built"))


def test_the_snapshot_controller_runs_the_image_that_is_built() -> None:
    """Its manifest has no version of its own."""
    text = (paths.ROOT / "local" / "manifests" / "snapshots.yaml").read_text()
    assert "image: localhost/snapshot-controller:SNAPSHOT_CONTROLLER_VERSION" in text
    assert binaries.csi_version("snapshot-controller").startswith("v8.")


def test_a_join_that_is_tried_again_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubelet that the first one has started registers its node once only: it has to end."""
    done: list[str] = []
    first, second = nodes.Node(1), nodes.Node(2)
    second.folder.mkdir(parents=True)
    monkeypatch.setattr(nodes, "enter", lambda _node, command, *_tools: command)
    monkeypatch.setattr(cluster, "kubectl", lambda arguments: done.append(f"kubectl {arguments[0]}"))
    monkeypatch.setattr(cluster, "_kubeadm", lambda _node, _built, verb, _config: done.append(verb))

    def output(command: Sequence[object]) -> str:
        done.append("forget" if command[-1] == cluster._FORGET else "token")
        return "--token a --discovery-token-ca-cert-hash b"

    monkeypatch.setattr(steps, "output", output)
    for _ in range(2):
        cluster._join(second, first, Path("/built"))
    assert done == ["kubectl delete", "forget", "token", "join"]
