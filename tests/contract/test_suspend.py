"""A suspension beside starts: what was answered last is what is so. For the fakes, and on a real cluster."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from service.access import Subject
from service.assembly import build_context
from service.errors import OperationInProgress, ServerNotFound, Suspended, TooManyOperations
from service.operations import power
from service.operations.change import change
from service.operations.context import Context
from service.operations.create import create
from service.operations.interfaces import Releases
from service.operations.suspend import suspend, unsuspend
from service.operations.upgrade import upgrade
from service.operations.visibility import Target, require_server
from service.settings import Settings
from service.tokens import Token
from tests.contract.conftest import VALUES, Interfaces, revisions
from tests.support.fakes import FakeAccounts
from tests.support.waiting import until

CUSTOMER = Token("acme", "", frozenset({"read", "operate"}))
SHOP = Token("shop", "", frozenset({"read", "operate", "admin"}))
#: No node takes the pods, because games would take time.
RUNNING = {**VALUES, "replicas": 1, "nodeSelector": {"no-such-node": "here"}}
NO_TOKENS: Any = object()
REASON = "The invoice is overdue."


@dataclass
class Replica:
    """One replica's verbs about one server."""

    context: Context
    id: int

    @classmethod
    def of(cls, interfaces: Interfaces, releases: Releases, id: int) -> Replica:
        settings = Settings(accepted_eulas=frozenset({"minecraft"}))
        return cls(build_context(settings, interfaces.cluster, releases, FakeAccounts(), NO_TOKENS), id)

    def target(self) -> Target:
        return require_server(self.context, SHOP, self.id, Subject.SERVER)

    def suspended(self) -> bool:
        return suspend(self.context, self.target(), REASON)

    def unsuspended(self) -> bool:
        return unsuspend(self.context, self.target())

    def record(self) -> dict[str, Any]:
        """What the chart has written on the StatefulSet, and its replicas."""
        statefulset = self.target().objects.statefulset
        assert statefulset is not None
        record: dict[str, Any] = json.loads(statefulset["metadata"]["annotations"]["gameserver/server"])
        return {"suspended": record.get("suspended"), "replicas": statefulset["spec"]["replicas"]}


@contextmanager
def insistent(replicas: list[Replica], seen: list[tuple[float, str]]) -> Iterator[None]:
    """A customer who starts, restarts, changes and creates the server all the time, through each replica.

    `seen` gets when each call began, and how it ended.
    """
    over = threading.Event()
    calls: list[Callable[[Replica], object]] = [
        lambda replica: power.start(replica.context, CUSTOMER, replica.target()),
        lambda replica: power.restart(replica.context, CUSTOMER, replica.target()),
        lambda replica: change(replica.context, CUSTOMER, replica.target(), {"options": {"motd": str(time.time())}}),
    ]

    def insist(replica: Replica, call: Callable[[Replica], object]) -> None:
        while not over.is_set():
            began = time.monotonic()
            try:
                call(replica)
                seen.append((began, "done"))
            except Suspended:
                seen.append((began, "suspended"))
            except (OperationInProgress, TooManyOperations):
                time.sleep(0.01)

    threads = [threading.Thread(target=insist, args=(replica, call)) for replica in replicas for call in calls]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def replicas(interfaces: Interfaces, new_id: Callable[[], int]) -> list[Replica]:
    """Two replicas, and a running server."""
    id = new_id()
    interfaces.releases.install(id, RUNNING)
    return [Replica.of(interfaces, releases, id) for releases in (interfaces.releases, interfaces.other)]


def test_no_start_comes_after_a_suspension(replicas: list[Replica]) -> None:
    """Whatever the customer calls once a suspension was answered is refused, on every replica.

    However often he calls, he cannot keep the suspension out: it needs one try.
    """
    one, other = replicas
    seen: list[tuple[float, str]] = []
    with insistent(replicas, seen):
        until(lambda: "done" in {outcome for _, outcome in seen})
        assert other.suspended()
        answered = time.monotonic()
        until(lambda: len([began for began, _ in seen if began >= answered]) > 20)
    assert {outcome for began, outcome in seen if began >= answered} == {"suspended"}
    record = one.record()
    assert (record["suspended"]["reason"], record["replicas"]) == (REASON, 0)
    create(one.context, CUSTOMER, one.id, _same_create(one))
    assert one.record() == record


def test_the_chart_carries_a_suspension(replicas: list[Replica], interfaces: Interfaces) -> None:
    """The StatefulSet has it, and the Service of the files; the end takes both away, and the server stays stopped."""
    one, other = replicas
    assert one.suspended()
    assert not other.suspended()
    values = interfaces.releases.current(one.id)
    assert values is not None
    assert one.record() == {"suspended": values["server"]["suspended"], "replicas": 0}
    assert _files_annotations(interfaces, one.id) == {"gameserver/suspended": "true"}
    assert other.unsuspended()
    assert not one.unsuspended()
    assert one.record() == {"suspended": None, "replicas": 0}
    assert _files_annotations(interfaces, one.id) == {}


def test_a_later_server_with_the_id_is_not_meant(interfaces: Interfaces, new_id: Callable[[], int]) -> None:
    """The id may be given to another customer while a call waits for its turn, or is on its way."""
    id = new_id()
    replica = Replica.of(interfaces, interfaces.releases, id)
    values = {uid: {**VALUES, "server": {**VALUES["server"], "uid": uid}} for uid in ("first", "second")}
    interfaces.releases.install(id, values["first"])
    earlier = replica.target()
    assert earlier.uid == "first"
    interfaces.releases.uninstall(id)
    interfaces.releases.install(id, values["second"])
    before = interfaces.releases.current(id), revisions(interfaces, id)
    calls: list[Callable[[], object]] = [
        lambda: suspend(replica.context, earlier, REASON),
        lambda: unsuspend(replica.context, earlier),
        lambda: power.start(replica.context, SHOP, earlier),
        lambda: power.stop(replica.context, earlier),
        lambda: power.restart(replica.context, SHOP, earlier),
        lambda: change(replica.context, SHOP, earlier, {"ram_gb": 2}),
        lambda: upgrade(replica.context, SHOP, earlier),
    ]
    for call in calls:
        with pytest.raises(ServerNotFound):
            call()
    assert (interfaces.releases.current(id), revisions(interfaces, id)) == before


def _files_annotations(interfaces: Interfaces, id: int) -> dict[str, str]:
    service = interfaces.cluster.service(f"server-{id}-sftp")
    assert service is not None
    annotations = service["metadata"].get("annotations") or {}
    return {name: text for name, text in annotations.items() if name.startswith("gameserver/")}


def _same_create(replica: Replica) -> dict[str, Any]:
    spec = replica.target().spec
    assert spec is not None
    names = ("game", "ram_gb", "disk_gb", "options", "rcon")
    sent = {name: getattr(spec, name) for name in names}
    return {**sent, "customer": spec.customer or None, "start": True, "disk": None}
