"""What the web layer relies on, whichever edges it was given."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from service.errors import ClusterUnavailable, InvalidRequest, OperationInProgress, RefusedByCluster, ServerNotFound
from service.servers.state import exists
from tests.contract.conftest import VALUES, Edges, revisions, statuses
from tests.support.waiting import until


def node_ports(edges: Edges, id: int) -> dict[str, int]:
    services = edges.cluster.server(id).services.values()
    return {port["name"]: port["nodePort"] for service in services for port in service["spec"]["ports"]}


def test_an_unknown_server_has_no_part(edges: Edges, new_id: Callable[[], int]) -> None:
    """Nothing is there, and nothing can be done to it."""
    id = new_id()
    objects = edges.cluster.server(id)
    assert (objects.id, objects.statefulset, objects.pod, objects.claim) == (id, None, None, None)
    assert (dict(objects.services), list(objects.releases), exists(objects)) == ({}, [], False)
    assert edges.releases.current(id) is None
    assert edges.releases.uninstall(id) is False
    assert edges.cluster.service(f"server-{id}") is None
    assert edges.cluster.rcon_password(id) is None
    assert edges.cluster.pod_log_tail(id, 10, False) == ""
    assert list(objects.events) == []
    with pytest.raises(ServerNotFound):
        edges.releases.change(id, lambda values: values)


def test_an_install_is_seen_at_once(edges: Edges, new_id: Callable[[], int]) -> None:
    """The next read, by any replica, finds the server's objects and exactly the values it was given."""
    id = new_id()
    edges.releases.install(id, VALUES)
    objects = edges.cluster.server(id)
    assert objects.statefulset is not None
    assert objects.statefulset["spec"]["replicas"] == 0
    record = json.loads(objects.statefulset["metadata"]["annotations"]["gameserver/server"])
    assert record == {
        "game": "minecraft",
        "ram_gb": 1,
        "disk_gb": 1,
        "options": VALUES["server"]["options"],
        "customer": "",
    }
    assert objects.claim is not None
    assert objects.claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert set(objects.services) == {f"server-{id}", f"server-{id}-sftp"}
    assert set(node_ports(edges, id)) == {"primary", "rcon", "sftp"}
    assert edges.cluster.service(f"server-{id}") is not None
    assert edges.cluster.rcon_password(id)
    assert revisions(edges, id) == [("1", "deployed")]
    assert edges.releases.current(id) == VALUES
    assert exists(objects)


def test_options_as_text_keep_their_numbers(edges: Edges, new_id: Callable[[], int]) -> None:
    """Through Helm's storage and the chart's annotation, both of which make a double of a number."""
    id, options = new_id(), '{"seed": 9007199254740993, "speed": 1.0}'
    values = {**VALUES, "server": {"customer": "", "options": options}}
    edges.releases.install(id, values)
    statefulset = edges.cluster.server(id).statefulset
    assert statefulset is not None
    assert json.loads(statefulset["metadata"]["annotations"]["gameserver/server"])["options"] == options
    assert edges.releases.current(id) == values


def test_a_change_sends_the_values_whole(edges: Edges, new_id: Callable[[], int]) -> None:
    """What the change does not touch is as before, the ports too; what it takes out is gone."""
    id = new_id()
    edges.releases.install(id, {**VALUES, "podLabels": {"rack": "a"}})
    ports = node_ports(edges, id)

    def change(values: dict[str, Any]) -> dict[str, Any]:
        del values["podLabels"]
        return {**values, "ramGb": 2}

    assert edges.releases.change(id, change) is True
    assert edges.releases.current(id) == {**VALUES, "ramGb": 2}
    assert revisions(edges, id) == [("1", "superseded"), ("2", "deployed")]
    assert node_ports(edges, id) == ports


def test_values_can_be_emptied(edges: Edges, new_id: Callable[[], int]) -> None:
    """Helm takes empty values for "as before" unless it is told otherwise."""
    id = new_id()
    edges.releases.install(id, {**VALUES, "ramGb": 7, "diskGb": 10})
    assert edges.releases.change(id, lambda values: {}) is True
    assert edges.releases.current(id) == {}
    statefulset = edges.cluster.server(id).statefulset
    assert statefulset is not None
    record = json.loads(statefulset["metadata"]["annotations"]["gameserver/server"])
    assert record["ram_gb"] == 2
    # The chart's default is a server that runs.
    edges.releases.uninstall(id)


def test_a_change_of_nothing_makes_no_revision(edges: Edges, new_id: Callable[[], int]) -> None:
    """Twice the same is once."""
    id = new_id()
    edges.releases.install(id, VALUES)
    assert edges.releases.change(id, lambda values: {**values, "replicas": 0}) is False
    assert revisions(edges, id) == [("1", "deployed")]


def test_a_change_of_nothing_makes_a_lost_workload_again(edges: Edges, new_id: Callable[[], int]) -> None:
    """A StatefulSet that a hand deleted comes back, though the values are the same."""
    id = new_id()
    edges.releases.install(id, VALUES)
    edges.lose_statefulset(id)
    assert edges.releases.change(id, lambda values: values) is True
    assert edges.cluster.server(id).statefulset is not None


def test_what_is_missing_is_named_and_made_again(edges: Edges, new_id: Callable[[], int]) -> None:
    """By a change of nothing; what is there keeps its ports."""
    id = new_id()
    edges.releases.install(id, VALUES)
    assert edges.releases.missing(id) == []
    ports = node_ports(edges, id)
    edges.lose_service(f"server-{id}-sftp")
    assert edges.releases.missing(id) == [f"Service server-{id}-sftp"]
    assert edges.releases.change(id, lambda values: values) is True
    assert edges.releases.missing(id) == []
    assert node_ports(edges, id)["primary"] == ports["primary"]
    assert edges.releases.change(id, lambda values: values) is False
    edges.releases.uninstall(id)
    assert edges.releases.missing(id) == []


def test_a_refused_change_changes_nothing(edges: Edges, new_id: Callable[[], int]) -> None:
    """The values are as before, so that the next write is not refused for the same reason."""
    id = new_id()
    edges.releases.install(id, {**VALUES, "diskGb": 2})
    edges.refuse_next()
    with pytest.raises(RefusedByCluster):
        # Kubernetes grows no disk that has never been used.
        edges.releases.change(id, lambda values: {**values, "diskGb": 3})
    assert edges.releases.current(id) == {**VALUES, "diskGb": 2}
    assert statuses(edges, id)[-1] == "deployed"
    assert edges.releases.change(id, lambda values: {**values, "ramGb": 2}) is True


def test_an_uninstall_keeps_the_disk(edges: Edges, new_id: Callable[[], int]) -> None:
    """The disk stays and is listed until it is erased; a server made over it takes it as it is."""
    id = new_id()
    edges.releases.install(id, VALUES)
    assert [disk["metadata"]["name"] for disk in edges.cluster.kept_disks()].count(f"server-{id}") == 0
    edges.use_disk(id)
    assert edges.releases.uninstall(id) is True
    objects = edges.cluster.server(id)
    assert not exists(objects)
    assert objects.claim is not None
    assert [disk["metadata"]["name"] for disk in edges.cluster.kept_disks()].count(f"server-{id}") == 1

    edges.cluster.keep_disk(id, "2026-01-31T12:00:00Z")
    kept = edges.cluster.server(id).claim
    assert kept is not None
    assert kept["metadata"]["annotations"]["gameserver/kept-since"] == "2026-01-31T12:00:00Z"

    edges.releases.install(id, VALUES)
    again = edges.cluster.server(id).claim
    assert again is not None
    assert again["metadata"].get("uid") == objects.claim["metadata"].get("uid")
    edges.releases.uninstall(id)

    edges.cluster.reuse_disk(id, "2026-02-28T12:00:00Z")
    used = edges.cluster.server(id).claim
    assert used is not None
    assert "gameserver/kept-since" not in used["metadata"]["annotations"]

    with edges.releases.locked(id):
        edges.cluster.erase_disk(id, lambda: edges.releases.confirm(id))
        until(lambda: edges.cluster.server(id).claim is None)
        assert [disk["metadata"]["name"] for disk in edges.cluster.kept_disks()].count(f"server-{id}") == 0
        edges.cluster.erase_disk(id, lambda: edges.releases.confirm(id))
    edges.cluster.keep_disk(id, "2026-01-31T12:00:00Z")
    edges.cluster.reuse_disk(id, "2026-02-28T12:00:00Z")


def test_a_disk_that_never_was_is_not_kept(edges: Edges, new_id: Callable[[], int]) -> None:
    """A claim without a volume is on no list, and goes where only such a one is to go; one with a volume never does."""
    id = new_id()
    edges.releases.install(id, VALUES)
    edges.releases.uninstall(id)
    assert edges.cluster.server(id).claim is not None
    assert [disk["metadata"]["name"] for disk in edges.cluster.kept_disks()].count(f"server-{id}") == 0
    with edges.releases.locked(id):
        edges.cluster.erase_disk(id, lambda: edges.releases.confirm(id), unless_used=True)
        until(lambda: edges.cluster.server(id).claim is None)
    edges.releases.install(id, VALUES)
    edges.use_disk(id)
    edges.releases.uninstall(id)
    with edges.releases.locked(id):
        edges.cluster.erase_disk(id, lambda: edges.releases.confirm(id), unless_used=True)
    assert [disk["metadata"]["name"] for disk in edges.cluster.kept_disks()].count(f"server-{id}") == 1


def test_a_disk_is_erased_under_the_lease_alone(edges: Edges, new_id: Callable[[], int]) -> None:
    """Whoever has lost it meanwhile erases nothing."""
    id = new_id()
    edges.releases.install(id, VALUES)
    edges.releases.uninstall(id)

    def lost() -> None:
        raise ClusterUnavailable

    with pytest.raises(ClusterUnavailable):
        edges.cluster.erase_disk(id, lost)
    assert edges.cluster.server(id).claim is not None


def test_the_lock_keeps_others_out_and_lets_its_holder_in(edges: Edges, new_id: Callable[[], int]) -> None:
    """Check, write and answer under one lock; anybody else is told to come again."""
    id, refused = new_id(), []

    def elsewhere() -> None:
        try:
            edges.other.install(id, VALUES)
        except OperationInProgress as problem:
            refused.append(problem.headers)

    with edges.releases.locked(id):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert refused == [{"Retry-After": "1"}]
        edges.releases.install(id, VALUES)
    assert edges.other.change(id, lambda values: {**values, "ramGb": 2}) is True


def test_a_failed_check_gives_the_lock_back(edges: Edges, new_id: Callable[[], int]) -> None:
    """Whatever ends the block, the next one comes in."""
    id = new_id()
    with pytest.raises(ZeroDivisionError), edges.releases.locked(id):
        raise ZeroDivisionError
    edges.other.install(id, VALUES)


def test_pages_are_by_number(edges: Edges, new_id: Callable[[], int]) -> None:
    """Nine comes before ten, and each server on one page only."""
    for _ in range(3):
        edges.releases.install(new_id(), VALUES)
    installed = [998, 1_000_007, 10_000_001]
    for id in reversed(installed):
        edges.releases.install(id, VALUES)

    def listed() -> list[int]:
        ids: list[int] = []
        continue_ = None
        while True:
            page, continue_ = edges.cluster.servers(2, continue_)
            assert len(page) <= 2
            ids += [objects.id for objects in page]
            if continue_ is None:
                return ids

    until(lambda: set(installed) <= set(listed()))
    ids = listed()
    assert ids == sorted(set(ids))
    page, _ = edges.cluster.servers(1, str(installed[-1] - 1))
    live = edges.cluster.server(installed[-1])
    assert page[0].statefulset is not None
    assert live.statefulset is not None
    assert page[0].statefulset["spec"]["replicas"] == 0
    assert page[0].statefulset["metadata"]["annotations"] == live.statefulset["metadata"]["annotations"]
    assert dict(page[0].services).keys() == dict(live.services).keys()
    assert [release["name"] for release in page[0].releases] == [release["name"] for release in live.releases]

    edges.releases.uninstall(installed[0])
    until(lambda: installed[0] not in listed())


def test_a_page_after_nonsense_is_refused(edges: Edges) -> None:
    """`continue` is what an earlier page gave."""
    with pytest.raises(InvalidRequest):
        edges.cluster.servers(1, "x")


def test_the_cluster_answers(edges: Edges) -> None:
    """Ready means that Kubernetes answers."""
    assert edges.cluster.ready() is True
