"""A random walk: whatever is asked of the real API in whatever order, it agrees with a small model."""

import itertools
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.support.waiting import until

SERVERS, GAP = 3, 10
_first = itertools.count(8 * 10**15 + int(time.time() * 10) % 10**9 * 1000, GAP)
PLACES = st.integers(0, SERVERS - 1)
SIZES = st.integers(1, 3)


@dataclass(frozen=True)
class Model:
    """What is wanted of a server, or the disk that is left of it (ram None), in GiB."""

    ram: int | None
    disk: int
    on: bool = False


class Walk(RuleBasedStateMachine):
    """Operations on several ids; after each of them the API shows what the model has."""

    cluster: Cluster

    def __init__(self) -> None:
        super().__init__()
        first = next(_first)
        self.ids = [first + place for place in range(SERVERS)]
        self.model: dict[int, Model] = {}
        self.claims: dict[int, str] = {}
        self.erased: set[int] = set()

    def expect(
        self, method: str, id: int, tail: str, status: int, body: object = None, type: str = "", *, agree: bool = True
    ) -> None:
        """One call that must answer with `status` (and the problem `type`) once it is no longer told to wait."""
        answer: Any = None

        def settled() -> bool:
            nonlocal answer
            answer = self.cluster.call(method, f"/api/v1/server/{id}/{tail}", body)
            return "Retry-After" not in answer.headers

        # A disk is given up only when its game has ended, which may take the grace period.
        until(settled, 150, lambda: f"{method} {tail}: {answer.text}")
        assert answer.status_code == status, f"{method} {tail} {body}: {answer.status_code} {answer.text}"
        if type:
            assert answer.json()["type"] == f"/problems/{type}"
        if agree:
            self.agree()

    def agree(self) -> None:
        """What the API shows of each id is what the model has, and a disk is the same until it is erased."""
        kept = {disk["id"]: disk["disk_gb"] for disk in self.cluster.done("GET", "/api/v1/disk/")["disks"]}
        for id in self.ids:
            there = self.model.get(id)
            answer = self.cluster.call("GET", f"/api/v1/server/{id}/")
            seen = answer.json()
            if there is None or there.ram is None:
                # A game that still ends is shown as deleting.
                assert answer.status_code == 404 or seen["state"] == "deleting", seen
            else:
                assert (seen["ram_gb"], seen["disk_gb"]) == (there.ram, there.disk)
                assert seen["wanted"] == ("running" if there.on else "stopped")
                assert seen["state"] != "failed", seen["reason"]
                assert id not in kept
            if there is not None and there.ram is None:
                assert kept[id] == there.disk
            if there is not None:
                uid = self.cluster.get("pvc", f"server-{id}")["metadata"]["uid"]
                assert self.claims.setdefault(id, uid) == uid

    def server(self, place: int) -> tuple[int, Model | None]:
        """The id at a place, and the server there; None where there is none, or its disk alone."""
        there = self.model.get(self.ids[place])
        return self.ids[place], there if there is not None and there.ram is not None else None

    @rule(place=PLACES, ram=SIZES, disk=SIZES, on=st.booleans(), kept=st.sampled_from([None, "reuse", "erase"]))
    def create(self, place: int, ram: int, disk: int, on: bool, kept: str | None) -> None:
        """A new one, the same again, another one in its place, and all ways to meet a kept disk."""
        id, there = self.server(place)
        left = self.model.get(id) if there is None else None
        body: dict[str, object] = {"ram_gb": ram, "disk_gb": disk, "start": on}
        if kept:
            body["disk"] = kept
        if there is not None:
            same = (there.ram, there.disk) == (ram, disk)
            self.expect("POST", id, "", 200 if same else 409, body, "" if same else "server-exists")
        elif left is not None and kept is None:
            self.expect("POST", id, "", 409, body, "disk-kept")
        elif left is not None and kept == "reuse" and disk != left.disk:
            self.expect("POST", id, "", 409, body, f"disk-cannot-{'shrink' if disk < left.disk else 'grow'}")
        else:
            if kept == "erase":
                self.claims.pop(id, None)
            self.model[id] = Model(ram, disk, on)
            self.expect("POST", id, "", 201, body)

    def switch(self, place: int, tail: str, on: bool) -> None:
        id, there = self.server(place)
        if there is not None:
            self.model[id] = Model(there.ram, there.disk, on)
        self.expect("PATCH", id, tail, 404 if there is None else 200)

    @rule(place=PLACES)
    def start(self, place: int) -> None:
        """Also of one that runs, and of none."""
        self.switch(place, "start", True)

    @rule(place=PLACES)
    def stop(self, place: int) -> None:
        """Also of one that is stopped, and of none."""
        self.switch(place, "stop", False)

    @rule(place=PLACES)
    def restart(self, place: int) -> None:
        """Starts one that is stopped."""
        self.switch(place, "restart", True)

    @precondition(lambda self: self.model)
    @rule(place=PLACES, ram=SIZES)
    def resize(self, place: int, ram: int) -> None:
        """More or less memory, running or not."""
        id, there = self.server(place)
        if there is not None:
            self.model[id] = Model(ram, there.disk, there.on)
        self.expect("PATCH", id, "", 404 if there is None else 200, {"ram_gb": ram})

    @precondition(lambda self: self.model)
    @rule(place=PLACES, disk=SIZES)
    def resize_disk(self, place: int, disk: int) -> None:
        """Local disks neither shrink nor grow."""
        id, there = self.server(place)
        if there is None:
            self.expect("PATCH", id, "", 404, {"disk_gb": disk})
        elif disk == there.disk:
            self.expect("PATCH", id, "", 200, {"disk_gb": disk})
        else:
            problem = f"disk-cannot-{'shrink' if disk < there.disk else 'grow'}"
            self.expect("PATCH", id, "", 409, {"disk_gb": disk}, problem)

    @precondition(lambda self: self.model)
    @rule(place=PLACES)
    def delete(self, place: int) -> None:
        """Keeps the disk, if there is one already; of a kept disk it changes nothing."""
        id = self.ids[place]
        there = self.model.get(id)
        if there is None:
            self.delete_none(id, "")
        elif self.cluster.get("pvc", f"server-{id}")["status"]["phase"] == "Pending":
            # A disk that is just being made is kept or not, by a hair's breadth.
            del self.model[id]
            self.expect("DELETE", id, "", 200, agree=False)
            if id in {disk["id"] for disk in self.cluster.done("GET", "/api/v1/disk/")["disks"]}:
                self.model[id] = Model(None, there.disk)
            else:
                self.erased.add(id)
                self.claims.pop(id, None)
            self.agree()
        else:
            self.model[id] = Model(None, there.disk)
            self.expect("DELETE", id, "", 200)

    @precondition(lambda self: self.model)
    @rule(place=PLACES)
    def erase(self, place: int) -> None:
        """Of a server, and of a kept disk."""
        id = self.ids[place]
        there = self.model.pop(id, None)
        self.claims.pop(id, None)
        if there is None:
            self.delete_none(id, "?disk=erase")
        else:
            self.erased.add(id)
            self.expect("DELETE", id, "?disk=erase", 200)

    def delete_none(self, id: int, tail: str) -> None:
        """Where nothing is: 404, but for a disk that was erased just now and may still be going."""
        answer = self.cluster.call("DELETE", f"/api/v1/server/{id}/{tail}")
        assert answer.status_code == 404 or (answer.status_code == 200 and id in self.erased), answer.text

    def teardown(self) -> None:
        """In the end each server comes to what is wanted of it; then all of it is erased."""
        try:
            for id, there in self.model.items():
                if there.ram is not None:
                    self.cluster.until_state(id, "running" if there.on else "stopped", seconds=150)
        finally:
            for id in self.ids:
                self.cluster.call("DELETE", f"/api/v1/server/{id}/?disk=erase")
        left = "statefulsets,services,persistentvolumeclaims,pods"
        for id in self.ids:
            label = f"gameserver/id={id}"
            until(
                lambda label=label: (
                    self.cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "get", left, "-l", label, "-o", "name") == ""
                ),
                150,
                f"something of server {id} is left",
            )


def walk(cluster: Cluster, walks: int, steps: int) -> None:
    """So many walks of at most so many steps."""

    class Here(Walk):
        pass

    Here.cluster = cluster
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=walks,
            stateful_step_count=steps,
            deadline=None,
            # To shrink a walk on a real cluster would take an hour; it is shown as it was found.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_a_short_walk_agrees_with_the_model(cluster: Cluster) -> None:
    """create, start, stop, restart, resize, delete, reuse and erase on three ids."""
    walk(cluster, walks=2, steps=14)


@pytest.mark.long
def test_a_long_walk_agrees_with_the_model(cluster: Cluster) -> None:
    """The same for a quarter of an hour or so."""
    walk(cluster, walks=12, steps=40)
