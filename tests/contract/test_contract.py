"""The contract that the web layer relies on, for the fakes and for the real interfaces."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from service.errors import (
    ClusterUnavailable,
    FieldConflict,
    InvalidRequest,
    OperationInProgress,
    RefusedByCluster,
    ServerNotFound,
)
from service.kube.client import Kube, path
from service.kube.times import now
from service.servers.accessors import annotation
from service.servers.diskjob import disk_is_made, disk_is_missing, disk_job
from service.servers.names import NEW_SINCE
from service.servers.objects import Objects, ServerObjects
from service.servers.state import exists
from service.servers.usage import Usage
from service.settings import Settings
from tests.contract.conftest import VALUES, Interfaces, revisions, statuses
from tests.support.waiting import until

TIME = "2026-01-31T12:00:00Z"


def node_ports(interfaces: Interfaces, id: int) -> dict[str, int]:
    """The node ports of all of a server's Services, by the ports' names."""
    services = interfaces.cluster.server(id).services.values()
    return {port["name"]: port["nodePort"] for service in services for port in service["spec"]["ports"]}


def test_an_unknown_server_has_no_objects(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """An unknown server has no objects, its uninstall does nothing, and a change raises ServerNotFound."""
    id = new_id()
    objects = interfaces.cluster.server(id)
    assert (objects.id, objects.statefulset, objects.pod, objects.claim) == (id, None, None, None)
    assert (dict(objects.services), list(objects.releases), exists(objects)) == ({}, [], False)
    assert interfaces.releases.current(id) is None
    assert interfaces.releases.uninstall(id) is False
    assert interfaces.cluster.service(f"server-{id}") is None
    assert interfaces.cluster.rcon_password(id) is None
    assert interfaces.cluster.econ_password(id) is None
    with pytest.raises(OSError), interfaces.cluster.attached(id, "none", 10):  # noqa: PT011
        pass
    assert interfaces.cluster.pod_log_tail(id, "none", 10, False) == ""
    assert list(objects.events) == []
    with pytest.raises(ServerNotFound):
        interfaces.releases.change(id, lambda values: values)


def test_an_install_is_seen_at_once(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """The next read finds the server's objects and exactly the values that were installed."""
    id = new_id()
    interfaces.releases.install(id, VALUES)
    objects = interfaces.cluster.server(id)
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
    assert set(node_ports(interfaces, id)) == {"primary", "rcon", "sftp"}
    assert interfaces.cluster.service(f"server-{id}") is not None
    assert interfaces.cluster.rcon_password(id)
    assert revisions(interfaces, id) == [("1", "deployed")]
    assert interfaces.releases.current(id) == VALUES
    assert exists(objects)


def test_an_external_console_has_a_password_that_is_kept(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """Only a server with such a console has one."""
    id = new_id()
    interfaces.releases.install(id, {**VALUES, "ramGb": 1})
    assert interfaces.cluster.econ_password(id) is None
    interfaces.releases.change(id, lambda values: {**values, "econ": {"enabled": True}})
    password = interfaces.cluster.econ_password(id)
    assert password
    interfaces.releases.change(id, lambda values: {**values, "ramGb": 2})
    assert interfaces.cluster.econ_password(id) == password


@pytest.mark.cluster
def test_a_password_that_is_replaced_in_place_is_new(
    real: Interfaces, real_settings: Settings, new_id: Callable[[], int]
) -> None:
    """A game that runs does not know it. What Helm writes to the Secret makes no password newer."""
    id, kube = new_id(), Kube()
    real.releases.install(id, VALUES)
    before = real.cluster.rcon_password(id)
    assert before is not None
    until(lambda: now() > before.since)
    real.releases.change(id, lambda values: {**values, "game": "another"})
    secret = path("v1", real_settings.servers_namespace, "secrets", f"server-{id}-rcon")
    assert (kube.get(secret) or {})["metadata"]["labels"]["gameserver/game"] == "another"
    assert real.cluster.rcon_password(id) == before
    kube.merge(secret, {"data": {"password": b64encode(b"replaced").decode()}})
    replaced = real.cluster.rcon_password(id)
    assert replaced is not None
    assert replaced.text == "replaced"
    assert replaced.since > before.since
    real.releases.change(id, lambda values: {**values, "game": "a-third"})
    assert real.cluster.rcon_password(id) == replaced


@pytest.mark.cluster
def test_a_disk_that_is_made_anew_says_so(real: Interfaces, real_settings: Settings, new_id: Callable[[], int]) -> None:
    """Whatever made it, and from then on. The first disk does not, nor does one that a clone waits for."""
    id, kube = new_id(), Kube()
    claim = f"{path('v1', real_settings.servers_namespace, 'persistentvolumeclaims')}/server-{id}"

    def new_since() -> str | None:
        return annotation(real.cluster.server(id).claim, NEW_SINCE)

    def lose_claim() -> None:
        kube.delete(claim)
        until(lambda: real.cluster.server(id).claim is None)

    real.releases.install(id, VALUES)
    real.releases.change(id, lambda values: {**values, "ramGb": 2})
    assert new_since() is None
    lose_claim()
    clone = {**VALUES, "server": {**VALUES["server"], "restoring": f"op-{0:026x}"}}
    real.releases.change(id, lambda values: clone)
    assert real.cluster.server(id).claim is not None
    assert new_since() is None
    real.releases.change(id, lambda values: VALUES)
    lose_claim()
    real.releases.change(id, lambda values: {**values, "ramGb": 2})
    since = new_since()
    assert since is not None
    real.releases.change(id, lambda values: {**values, "ramGb": 1})
    assert new_since() == since


def test_options_as_text_keep_their_numbers(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """Options as text survive Helm's storage and the chart's annotation, both of which turn numbers into doubles."""
    id, options = new_id(), '{"seed": 9007199254740993, "speed": 1.0}'
    values = {**VALUES, "server": {"customer": "", "options": options}}
    interfaces.releases.install(id, values)
    statefulset = interfaces.cluster.server(id).statefulset
    assert statefulset is not None
    assert json.loads(statefulset["metadata"]["annotations"]["gameserver/server"])["options"] == options
    assert interfaces.releases.current(id) == values


def test_a_change_sends_the_values_whole(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """A change keeps the other values and the node ports, and removes the values that it leaves out."""
    id = new_id()
    interfaces.releases.install(id, {**VALUES, "podLabels": {"rack": "a"}})
    ports = node_ports(interfaces, id)

    def change(values: dict[str, Any]) -> dict[str, Any]:
        del values["podLabels"]
        return {**values, "ramGb": 2}

    assert interfaces.releases.change(id, change) is True
    assert interfaces.releases.current(id) == {**VALUES, "ramGb": 2}
    assert revisions(interfaces, id) == [("1", "superseded"), ("2", "deployed")]
    assert node_ports(interfaces, id) == ports


def test_values_can_be_emptied(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """A change to empty values gives the chart's defaults. By default Helm would keep the old values."""
    id = new_id()
    interfaces.releases.install(id, {**VALUES, "ramGb": 7, "diskGb": 10})
    assert interfaces.releases.change(id, lambda values: {}) is True
    assert interfaces.releases.current(id) == {}
    statefulset = interfaces.cluster.server(id).statefulset
    assert statefulset is not None
    record = json.loads(statefulset["metadata"]["annotations"]["gameserver/server"])
    assert record["ram_gb"] == 2
    # By the chart's default the server runs.
    interfaces.releases.uninstall(id)


def test_a_change_of_nothing_makes_no_revision(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """A change to the same values makes no revision."""
    id = new_id()
    interfaces.releases.install(id, VALUES)
    assert interfaces.releases.change(id, lambda values: {**values, "replicas": 0}) is False
    assert revisions(interfaces, id) == [("1", "deployed")]


def test_a_change_of_nothing_restores_a_lost_workload(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """A change to the same values restores a StatefulSet that an operator deleted."""
    id = new_id()
    interfaces.releases.install(id, VALUES)
    interfaces.lose_statefulset(id)
    assert interfaces.releases.change(id, lambda values: values) is True
    assert interfaces.cluster.server(id).statefulset is not None


def test_a_missing_object_is_named_and_restored(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """A change to the same values restores a missing Service, and the other one keeps its ports."""
    id = new_id()
    interfaces.releases.install(id, VALUES)
    assert interfaces.releases.missing(id) == []
    ports = node_ports(interfaces, id)
    interfaces.lose_service(f"server-{id}-sftp")
    assert interfaces.releases.missing(id) == [f"Service server-{id}-sftp"]
    assert interfaces.releases.change(id, lambda values: values) is True
    assert interfaces.releases.missing(id) == []
    assert node_ports(interfaces, id)["primary"] == ports["primary"]
    assert interfaces.releases.change(id, lambda values: values) is False
    interfaces.releases.uninstall(id)
    assert interfaces.releases.missing(id) == []


def test_a_change_of_nothing_notices_who_else_has_scaled_the_server(
    interfaces: Interfaces, new_id: Callable[[], int]
) -> None:
    """Whoever ran `kubectl scale` owns the field, until it is taken back: then a stopped server is stopped."""
    id = new_id()
    interfaces.releases.install(id, VALUES)
    interfaces.scale(id, 1)
    try:
        with pytest.raises(FieldConflict):
            interfaces.releases.change(id, lambda values: values)
        assert interfaces.releases.change(id, lambda values: values, force_conflicts=True) is True
        statefulset = interfaces.cluster.server(id).statefulset
        assert statefulset is not None
        assert statefulset["spec"]["replicas"] == 0
        assert interfaces.releases.change(id, lambda values: values, force_conflicts=True) is False
    finally:
        interfaces.scale(id, 0)


def test_a_refused_change_changes_nothing(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """A refused change leaves the old values and no revision, and the next write is not refused for the same reason."""
    id = new_id()
    interfaces.releases.install(id, {**VALUES, "diskGb": 2})
    interfaces.refuse_next()
    with pytest.raises(RefusedByCluster):
        # Kubernetes grows no disk that has never been used.
        interfaces.releases.change(id, lambda values: {**values, "diskGb": 3})
    assert interfaces.releases.current(id) == {**VALUES, "diskGb": 2}
    assert statuses(interfaces, id) == ["deployed"]
    assert interfaces.releases.change(id, lambda values: {**values, "ramGb": 2}) is True


def test_an_uninstall_keeps_the_disk(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """The disk stays and is listed until it is erased, and a new server uses it as it is."""
    id = new_id()
    interfaces.releases.install(id, VALUES)
    assert [disk["metadata"]["name"] for disk in interfaces.cluster.kept_disks()].count(f"server-{id}") == 0
    interfaces.use_disk(id)
    assert interfaces.releases.uninstall(id) is True
    objects = interfaces.cluster.server(id)
    assert not exists(objects)
    assert objects.claim is not None
    assert [disk["metadata"]["name"] for disk in interfaces.cluster.kept_disks()].count(f"server-{id}") == 1

    interfaces.cluster.keep_disk(id, "2026-01-31T12:00:00Z")
    kept = interfaces.cluster.server(id).claim
    assert kept is not None
    assert kept["metadata"]["annotations"]["gameserver/kept-since"] == "2026-01-31T12:00:00Z"

    interfaces.releases.install(id, VALUES)
    again = interfaces.cluster.server(id).claim
    assert again is not None
    assert again["metadata"].get("uid") == objects.claim["metadata"].get("uid")
    interfaces.releases.uninstall(id)

    interfaces.cluster.reuse_disk(id, "2026-02-28T12:00:00Z")
    used = interfaces.cluster.server(id).claim
    assert used is not None
    assert "gameserver/kept-since" not in used["metadata"]["annotations"]

    with interfaces.releases.locked(id):
        interfaces.cluster.erase_disk(id, lambda: interfaces.releases.confirm(id))
        until(lambda: interfaces.cluster.server(id).claim is None)
        assert [disk["metadata"]["name"] for disk in interfaces.cluster.kept_disks()].count(f"server-{id}") == 0
        interfaces.cluster.erase_disk(id, lambda: interfaces.releases.confirm(id))
    interfaces.cluster.keep_disk(id, "2026-01-31T12:00:00Z")
    interfaces.cluster.reuse_disk(id, "2026-02-28T12:00:00Z")


def test_a_disk_that_was_never_used_is_not_kept(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """A claim without a volume is not listed, and `unless_used` erases it. A claim with a volume stays."""
    id = new_id()
    interfaces.releases.install(id, VALUES)
    interfaces.releases.uninstall(id)
    assert interfaces.cluster.server(id).claim is not None
    assert [disk["metadata"]["name"] for disk in interfaces.cluster.kept_disks()].count(f"server-{id}") == 0
    with interfaces.releases.locked(id):
        interfaces.cluster.erase_disk(id, lambda: interfaces.releases.confirm(id), unless_used=True)
        until(lambda: interfaces.cluster.server(id).claim is None)
    interfaces.releases.install(id, VALUES)
    interfaces.use_disk(id)
    interfaces.releases.uninstall(id)
    with interfaces.releases.locked(id):
        interfaces.cluster.erase_disk(id, lambda: interfaces.releases.confirm(id), unless_used=True)
    assert [disk["metadata"]["name"] for disk in interfaces.cluster.kept_disks()].count(f"server-{id}") == 1


def test_the_disks_are_those_of_servers_and_kept_ones(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """Some moments later. How full they are is unknown until an agent says so; then every read has it."""
    id, kept = new_id(), new_id()

    def known() -> dict[str, object]:
        return {claim["metadata"]["name"]: usage for claim, usage in interfaces.cluster.disks()}

    for each in (id, kept):
        interfaces.releases.install(each, VALUES)
        interfaces.use_disk(each)
    interfaces.releases.uninstall(kept)
    until(lambda: {f"server-{id}", f"server-{kept}"} <= known().keys())
    objects = interfaces.cluster.server(id)
    found = (known()[f"server-{id}"], known()[f"server-{kept}"], objects.usage, interfaces.cluster.usage(objects.claim))
    assert found == (None, None, None, None)
    assert interfaces.cluster.usage(None) is None
    reported = {id: Usage(TIME, True, used=1, size=2), kept: Usage(TIME, enforced=False)}
    interfaces.report_use(id, TIME, {"used": 1, "size": 2, "full": False})
    interfaces.report_use(kept, TIME, {"enforced": False})
    until(lambda: all(known()[f"server-{each}"] == usage for each, usage in reported.items()))
    assert interfaces.cluster.server(id).usage == interfaces.cluster.usage(objects.claim) == reported[id]
    page, _ = interfaces.cluster.servers(1, str(id - 1))
    assert page[0].usage == reported[id]
    [claim] = [claim for claim in interfaces.cluster.kept_disks() if claim["metadata"]["name"] == f"server-{kept}"]
    assert interfaces.cluster.usage(claim) == reported[kept]


def test_a_claim_that_a_person_restored_becomes_the_releases(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """Once a server is to use it, Helm installs over it, and it is a disk as any other, of the same size."""
    id = new_id()
    interfaces.restore_claim(id)
    assert f"server-{id}" not in [disk["metadata"]["name"] for disk in interfaces.cluster.kept_disks()]
    assert interfaces.cluster.volume(f"volume-{id}") is None
    interfaces.cluster.reuse_disk(id, "2026-02-28T12:00:00Z")
    interfaces.releases.install(id, VALUES)
    claim = interfaces.cluster.server(id).claim
    assert claim is not None
    assert claim["metadata"]["labels"]["gameserver/id"] == str(id)
    assert json.loads(claim["metadata"]["annotations"]["gameserver/server"])["disk_gb"] == 1
    assert statuses(interfaces, id) == ["deployed"]
    interfaces.releases.uninstall(id)
    interfaces.use_disk(id)
    assert f"server-{id}" in [disk["metadata"]["name"] for disk in interfaces.cluster.kept_disks()]
    with interfaces.releases.locked(id):
        interfaces.cluster.erase_disk(id, lambda: interfaces.releases.confirm(id))
        until(lambda: interfaces.cluster.server(id).claim is None)


def test_a_disk_is_made_before_the_first_start(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """One Job makes it, however often it is asked for. It is not the game's pod, and goes with the server."""
    id = new_id()
    interfaces.releases.install(id, VALUES)
    assert disk_is_missing(interfaces.cluster.disk_job(id))
    statefulset = interfaces.cluster.server(id).statefulset
    assert statefulset is not None
    # The disk is made even if the image cannot be pulled.
    job = disk_job(id, statefulset, "localhost/no-such-image:1", ["registry"])
    for _ in range(2):
        interfaces.cluster.make_disk(job)
    assert interfaces.cluster.disk_job(id).statefulset is not None
    assert not disk_is_missing(interfaces.cluster.disk_job(id))
    until(lambda: disk_is_made(interfaces.cluster.disk_job(id)), 60)
    objects = interfaces.cluster.server(id)
    assert (objects.pod, exists(objects)) == (None, True)
    interfaces.releases.uninstall(id)
    until(lambda: interfaces.cluster.disk_job(id).statefulset is None, 60)
    with interfaces.releases.locked(id):
        interfaces.cluster.erase_disk(id, lambda: interfaces.releases.confirm(id))
        until(lambda: interfaces.cluster.server(id).claim is None, 60)


def test_a_disk_is_erased_under_the_lease_alone(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """An erase whose confirmation fails, because the Lease was lost, erases nothing."""
    id = new_id()
    interfaces.releases.install(id, VALUES)
    interfaces.releases.uninstall(id)

    def lost() -> None:
        raise ClusterUnavailable

    with pytest.raises(ClusterUnavailable):
        interfaces.cluster.erase_disk(id, lost)
    assert interfaces.cluster.server(id).claim is not None


def test_the_lock_keeps_others_out_and_lets_its_holder_in(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """The holder of the lock can write. Another replica gets 409 with Retry-After until the lock is released."""
    id, refused = new_id(), []

    def elsewhere() -> None:
        try:
            interfaces.other.install(id, VALUES)
        except OperationInProgress as problem:
            refused.append(problem.headers)

    with interfaces.releases.locked(id):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert refused == [{"Retry-After": "1"}]
        interfaces.releases.install(id, VALUES)
    assert interfaces.other.change(id, lambda values: {**values, "ramGb": 2}) is True


def test_a_failed_check_gives_the_lock_back(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """An exception in the block releases the lock."""
    id = new_id()
    with pytest.raises(ZeroDivisionError), interfaces.releases.locked(id):
        raise ZeroDivisionError
    interfaces.other.install(id, VALUES)


def test_pages_are_by_number(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """Servers are listed in the order of their ids, each on one page only."""
    for _ in range(3):
        interfaces.releases.install(new_id(), VALUES)
    installed = [998, 1_000_007, 10_000_001]
    for id in reversed(installed):
        interfaces.releases.install(id, VALUES)

    def listed(wanted: Callable[[Objects], bool] | None = None) -> list[int]:
        ids: list[int] = []
        continue_ = None
        while True:
            page, continue_ = interfaces.cluster.servers(2, continue_, wanted)
            assert len(page) == 2 or continue_ is None
            ids += [objects.id for objects in page]
            if continue_ is None:
                return ids

    until(lambda: set(installed) <= set(listed()))
    ids = listed()
    assert ids == sorted(set(ids))
    assert listed(lambda objects: objects.id in installed) == installed
    assert interfaces.cluster.servers(1, None, lambda objects: objects.id == installed[0])[1] is None
    page, _ = interfaces.cluster.servers(1, str(installed[-1] - 1))
    live = interfaces.cluster.server(installed[-1])
    assert page[0].statefulset is not None
    assert live.statefulset is not None
    assert page[0].statefulset["spec"]["replicas"] == 0
    assert page[0].statefulset["metadata"]["annotations"] == live.statefulset["metadata"]["annotations"]
    assert dict(page[0].services).keys() == dict(live.services).keys()
    assert [release["name"] for release in page[0].releases] == [release["name"] for release in live.releases]

    interfaces.releases.uninstall(installed[0])
    until(lambda: installed[0] not in listed())


def test_a_page_after_nonsense_is_refused(interfaces: Interfaces) -> None:
    """A `continue` that no page gave raises InvalidRequest."""
    with pytest.raises(InvalidRequest):
        interfaces.cluster.servers(1, "x")


def test_the_cluster_answers(interfaces: Interfaces) -> None:
    """The cluster is ready if Kubernetes answers."""
    assert interfaces.cluster.ready() is True


def test_an_annotation_is_written_by_compare_and_set(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """It belongs to the server with that uid, outlives changes of the release, and ends with the server."""
    id, cluster = new_id(), interfaces.cluster
    interfaces.releases.install(id, {**VALUES, "server": {**VALUES["server"], "uid": "uid-1"}})
    texts: list[str | None] = []

    def write(text: str | None) -> Callable[[str | None], str | None]:
        def change(current: str | None) -> str | None:
            texts.append(current)
            return text

        return change

    assert cluster.annotate(id, "uid-1", "gameserver/test", write("one")) == "one"
    interfaces.releases.change(id, lambda values: {**values, "ramGb": 2})

    def refuse(text: str | None) -> str | None:
        raise KeyError

    with pytest.raises(KeyError):
        cluster.annotate(id, "uid-1", "gameserver/test", refuse)
    assert cluster.annotate(id, "uid-1", "gameserver/test", write("two")) == "two"
    assert cluster.annotate(id, "uid-1", "gameserver/test", write(None)) is None
    assert cluster.annotate(id, "uid-1", "gameserver/test", write(None)) is None
    # After a conflict, such as with the StatefulSet's controller, the change is asked once more.
    assert [text for text, _ in groupby(texts)] == [None, "one", "two", None]
    with pytest.raises(ServerNotFound):
        cluster.annotate(id, "uid-2", "gameserver/test", write("three"))
    interfaces.releases.uninstall(id)
    with pytest.raises(ServerNotFound):
        cluster.annotate(id, "uid-1", "gameserver/test", write("three"))


def test_the_watches_know_a_server_and_tell_its_changes(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """The objects are those of a live read, and each change is told after it is known."""
    id = new_id()
    told: list[tuple[int, str, bool]] = []
    interfaces.cluster.subscribe(lambda id, kind, before, item, deleted: told.append((id, kind, deleted)))
    interfaces.releases.install(id, VALUES)
    until(lambda: exists(interfaces.cluster.known(id) or ServerObjects(id)))
    assert (id, "statefulset", False) in told
    assert id in interfaces.cluster.known_ids()
    assert [objects.id for objects in interfaces.cluster.known_servers()] == interfaces.cluster.known_ids()
    assert interfaces.cluster.known(new_id()) is None
    interfaces.releases.uninstall(id)
    until(lambda: interfaces.cluster.known(id) is None)
    assert (id, "statefulset", True) in told
    assert id not in interfaces.cluster.known_ids()


def test_an_address_is_that_of_the_server_now(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """Whatever the watches still know of a server that had the id before."""
    id, cluster = new_id(), interfaces.cluster
    name = f"server-{id}"
    assert not cluster.addressed(id).services
    for _ in range(2):
        interfaces.releases.install(id, VALUES)
        assert cluster.addressed(id).services[name] == cluster.server(id).services[name]
        until(lambda: exists(cluster.known(id) or ServerObjects(id)))
        assert cluster.addressed(id).services[name] == cluster.server(id).services[name]
        interfaces.releases.uninstall(id)
        assert not cluster.addressed(id).services


def test_an_upgrade_brings_a_server_to_the_chart_of_the_api(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """The values stay. There is nothing to do for a server that has the chart, unless an object is missing."""
    id = new_id()
    interfaces.releases.install(id, VALUES)
    assert interfaces.releases.upgrade(id) is False
    assert interfaces.newer.upgrade(id) is True
    assert interfaces.newer.upgrade(id) is False
    assert interfaces.newer.current(id) == VALUES
    assert statuses(interfaces, id) == ["superseded", "deployed"]
    interfaces.lose_statefulset(id)
    assert interfaces.newer.upgrade(id) is True
    assert interfaces.cluster.server(id).statefulset is not None
    with pytest.raises(ServerNotFound):
        interfaces.releases.upgrade(new_id())
