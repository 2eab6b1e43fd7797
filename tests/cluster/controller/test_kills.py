"""The active controller is killed at random while events, schedules and idle stops go on; a model says what must be.

Each kill costs the 15 seconds in which the dead pod's Lease runs out, so this takes minutes. Ten kills belong to
`make test`, a hundred to `make test-long`.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.controller.place import TAKEOVER_SECONDS, Place, place_of
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster]

#: A minute of the idle stop, in seconds.
MINUTE = 2
IDLE, SCHEDULED, CRASHING = 1, 2, 3
NIGHTLY = {"cron": "0 0 1 1 *", "steps": [{"restart": {}}]}
#: The outcomes of runs that ended because their controller was killed.
BROKEN = {"interrupted", "failed"}


@dataclass
class Model:
    """What has happened: what this test has done, and what the API has answered.

    Attributes:
        idle_stops: When the server was stopped because nobody played.
        runs: The runs of the schedule, by when they were due: their outcomes.
        crashes: How often the game was killed.
        passing: The servers that were created and deleted.
    """

    idle_stops: set[str] = field(default_factory=set)
    runs: dict[str, str] = field(default_factory=dict)
    crashes: int = 0
    passing: list[int] = field(default_factory=list)


class Killer(threading.Thread):
    """Kills the active controller again and again, and starts it again."""

    def __init__(self, place: Place, stack: ExitStack, kills: int, seed: int) -> None:
        super().__init__(name="killer", daemon=True)
        self._place, self._stack, self._left, self._random = place, stack, kills, random.Random(seed)
        self._controllers = {name: stack.enter_context(place.controller(name)) for name in ("one", "two")}
        self.takeovers: list[float] = []

    def run(self) -> None:
        while self._left:
            self._left -= 1
            until(lambda: self._place.active() in self._controllers, TAKEOVER_SECONDS + 10, self._place.logged)
            # What happens while no pod watches, nobody knows. A busy machine takes long to start the other pod.
            until(self._both_watch, 60, self._place.logged)
            time.sleep(self._random.uniform(0, 5))
            name, holder = self._place.active(), self._place.holder()
            if name not in self._controllers:
                continue
            self._controllers[name].kill()
            self._controllers[name].wait()
            killed_at = time.monotonic()
            self._start(name)
            until(
                lambda holder=holder: self._place.holder() not in ("", holder),  # type: ignore[misc]
                TAKEOVER_SECONDS + 10,
                self._place.logged,
            )
            self.takeovers.append(time.monotonic() - killed_at)
            # What happened since the kill, only the new active one has seen whole: if it died before it has written
            # that, nobody would know it. Two deaths so close to each other are not what is promised.
            told = len(self._place.events())
            until(lambda told=told: len(self._place.events()) > told, 60, self._place.logged)  # type: ignore[misc]

    def _both_watch(self) -> bool:
        """Whether both pods watch. One that has ended, such as by losing its Lease, is started again."""
        for name, process in self._controllers.items():
            if process.poll() is not None:
                self._start(name)
        return all(map(self._place.watches, self._controllers))

    def _start(self, name: str) -> None:
        self._controllers[name] = self._stack.enter_context(self._place.controller(name))


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    with place_of(cluster, tmp_path, IDLE_MINUTE_SECONDS=str(MINUTE), IDLE_STOP_MIN="1") as place:
        yield place


def server(place: Place, id: int) -> dict[str, Any]:
    return place.call("GET", f"/server/{id}/")


def go_on(place: Place, model: Model, step: int) -> None:
    """Let things happen: what this call finds in the cluster goes into the model."""
    idle = server(place, IDLE)
    if idle["state"] == "stopped" and idle["idle"]["stopped_at"]:
        model.idle_stops.add(idle["idle"]["stopped_at"])
        place.call("PATCH", f"/server/{IDLE}/start")
    run = place.call("GET", f"/server/{SCHEDULED}/schedule/nightly")["last_run"]
    if run is not None and run["finished"]:
        model.runs[run["due"]] = run["outcome"]
    if run is None or run["finished"]:
        place.call("POST", f"/server/{SCHEDULED}/schedule/nightly/run")
    # Kubernetes makes longer and longer pauses between restarts, so the game crashes a few times only.
    if model.crashes < 3 and server(place, CRASHING)["state"] == "running":
        model.crashes += 1
        place.crash(CRASHING)
        until(lambda: server(place, CRASHING)["state"] != "running", 10)
    if step % 3 == 0:
        id = 100 + len(model.passing)
        model.passing.append(id)
        place.call("POST", f"/server/{id}/", {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1, "start": False})
        place.call("DELETE", f"/server/{id}/?disk=erase")


def settle(place: Place, model: Model) -> None:
    """Let what is under way come to its end."""
    place.call("PATCH", f"/server/{IDLE}/", {"idle_stop_minutes": None})

    def is_finished() -> bool:
        run = place.call("GET", f"/server/{SCHEDULED}/schedule/nightly")["last_run"]
        if run["finished"]:
            model.runs[run["due"]] = run["outcome"]
        return bool(run["finished"])

    until(is_finished, 60, place.logged)
    place.until_running(SCHEDULED, CRASHING, seconds=180)
    idle = server(place, IDLE)
    if idle["idle"] and idle["idle"]["stopped_at"]:
        model.idle_stops.add(idle["idle"]["stopped_at"])
    last = 100 + len(model.passing) - 1
    until(lambda: "deleted" in types(place, last), 60, lambda: f"{last}: {types(place, last)} {place.logged()}")
    until(lambda: types(place, CRASHING)[-1] == "running", 60, lambda: f"{types(place, CRASHING)}")


def types(place: Place, id: int) -> list[str]:
    return [event["type"] for event in place.events() if event["server"] == id]


def count(place: Place, id: int) -> Counter[str]:
    return Counter(types(place, id))


def check(place: Place, model: Model) -> None:
    """Compare the log with the model."""
    events = place.events()
    assert len({event["id"] for event in events}) == len(events), "an event was told twice"
    positions = [event["position"] for event in events]
    assert positions == sorted(positions)
    numbers: dict[str, list[int]] = {}
    for event in events:
        numbers.setdefault(event["uid"], []).append(event["number"])
    for uid, sequence in numbers.items():
        assert sequence == list(range(1, len(sequence) + 1)), f"the events of {uid} have holes"
    for id in model.passing:
        assert [event["type"] for event in events if event["server"] == id] == ["created", "deleted"]
    # Whether a run that has ended was ready once, Kubernetes does not say: nobody knows it if no controller saw it.
    crashing = count(place, CRASHING)
    assert 1 <= crashing.pop("running") <= model.crashes + 1
    assert crashing == {"created": 1, "started": 1, "crashed": model.crashes}
    idle = [event["time"] for event in events if (event["server"], event["type"]) == (IDLE, "idle-stopped")]
    assert sorted(idle) == sorted(model.idle_stops)
    scheduled = count(place, SCHEDULED)
    outcomes = Counter(model.runs.values())
    assert set(outcomes) <= {"succeeded", *BROKEN}
    assert scheduled["schedule-failed"] == sum(outcomes[outcome] for outcome in BROKEN)
    # Each step at most once: a restart is one more pod, unless two came within a second or the run was broken before.
    pods = scheduled["started"] - 1
    assert pods <= len(model.runs)
    assert outcomes["succeeded"] >= 1


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(10, marks=pytest.mark.own_namespace),
        pytest.param(100, marks=pytest.mark.long),
    ],
)
def test_the_log_is_as_the_model_says_through_kills(place: Place, kills: int) -> None:
    """No event is lost or told twice, no step is done twice, no schedule is stuck, and idle stops go on."""
    model = Model()
    with ExitStack() as stack:
        killer = Killer(place, stack, kills, seed=kills)
        until(lambda: place.active() != "", 30, place.logged)
        place.until_begun()
        for id in (IDLE, SCHEDULED, CRASHING):
            place.call("POST", f"/server/{id}/", {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1})
        place.call("PATCH", f"/server/{IDLE}/", {"idle_stop_minutes": 1})
        place.call("PUT", f"/server/{SCHEDULED}/schedule/nightly", NIGHTLY)
        place.until_running(IDLE, SCHEDULED, CRASHING)
        killer.start()
        step = 0
        while killer.is_alive():
            go_on(place, model, step)
            step += 1
            time.sleep(1)
        assert len(killer.takeovers) == kills, place.logged()
        assert max(killer.takeovers) < TAKEOVER_SECONDS
        settle(place, model)
        check(place, model)
        print(f"{kills} kills; the longest takeover took {max(killer.takeovers):.1f} s; {len(place.events())} events;")
        print(
            f"{Counter(model.runs.values())}; {len(model.idle_stops)} idle stops; {len(model.passing)} servers passed"
        )
