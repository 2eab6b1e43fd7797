"""The log of events on the real cluster, with controllers that are killed and frozen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.controller.place import TAKEOVER_SECONDS, Place, place_of
from tests.cluster.replicas import first_process
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

PATH = "/server/1/"


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    with place_of(cluster, tmp_path) as place:
        yield place


def test_nothing_is_lost_or_told_twice_through_a_kill_and_a_freeze(place: Place) -> None:
    """A server's whole life is in the log, in order; from cause to log it takes a second or two."""
    with ExitStack() as stack:
        controllers = {name: stack.enter_context(place.controller(name)) for name in ("one", "two")}
        until(lambda: place.active() in controllers, 30, place.logged)
        place.until_begun()

        place.call("POST", PATH, {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1, "customer": "acme"})
        place.event(3, "running", 90)

        place.crash()
        crashed_at = datetime.now(UTC)
        crash = place.event(4, "crashed", 5)
        assert (datetime.now(UTC) - crashed_at).total_seconds() < 3
        assert crash["data"] == {
            "restarts": 0, "exit_code": 137, "reason": "The game crashed (exit code 137)."
        }  # fmt: skip
        place.event(5, "running", 30)

        # The other one has seen how the run ended, and writes it.
        killed = place.active()
        controllers[killed].kill()
        place.crash()
        crash = place.event(6, "crashed", TAKEOVER_SECONDS + 5)
        assert (crash["data"]["restarts"], crash["data"]["exit_code"]) == (1, 137)
        controllers[killed] = stack.enter_context(place.controller(killed))
        place.event(7, "running", 60)

        frozen = place.active()
        controllers[frozen].send_signal(signal.SIGSTOP)
        place.call("PATCH", f"{PATH}stop")
        stop = place.event(8, "stopped", TAKEOVER_SECONDS + 15)
        assert stop["data"] == {"wanted": "stopped", "exit_code": stop["data"]["exit_code"], "reason": None}
        controllers[frozen].send_signal(signal.SIGCONT)
        # It has lost the Lease, so it ends.
        controllers[frozen].wait(30)

        place.call("DELETE", f"{PATH}?disk=erase")
        place.event(9, "deleted", 20)
        events = place.events()
        assert [event["type"] for event in events] == [
            "created", "started", "running", "crashed", "running", "crashed", "running", "stopped", "deleted"
        ]  # fmt: skip
        assert [event["number"] for event in events] == list(range(1, 10))
        assert len({event["id"] for event in events}) == 9
        assert {(event["server"], event["customer"]) for event in events} == {(1, "acme")}


def test_an_end_that_nobody_asked_for_is_told_as_what_it_was(cluster: Cluster, tmp_path: Path) -> None:
    """A game that its node evicts may exit with 0; a pod that is deleted by force goes before its game has ended."""
    small = {"ephemeralStorage": {"limit": "20Mi"}}
    with place_of(cluster, tmp_path, values=small, ACCEPTED_EULAS="minecraft") as place, place.controller("one"):

        def told(id: int, type_: str) -> dict[str, Any]:
            """The first event of this type about the server."""
            found: list[dict[str, Any]] = []

            def is_told() -> bool:
                found[:] = [event for event in place.events() if (event["server"], event["type"]) == (id, type_)]
                return bool(found)

            until(is_told, 90, lambda: f"{place.types()} {place.logged()}")
            return dict(found[0]["data"])

        place.until_begun()
        for id, game in ((1, "minecraft"), (2, "teeworlds")):
            place.call("POST", f"/server/{id}/", {"game": game, "ram_gb": 1, "disk_gb": 1})
        told(1, "running")
        kubectl = ("kubectl", "-n", place.namespace)
        cluster.run(*kubectl, "exec", "server-1-0", "--", "sh", "-c", "head -c 60000000 /dev/zero > /tmp/large")

        told(2, "running")
        os.kill(first_process(place.pod(2), "teeworlds"), signal.SIGSTOP)
        place.call("PATCH", "/server/2/stop")
        until(lambda: "deletionTimestamp" in place.pod(2)["metadata"], 30)
        cluster.run(*kubectl, "delete", "pod", "server-2-0", "--force", "--grace-period=0")
        reason = "Its pod was removed before its game had ended. Whether it saved its world, or still runs, is unknown."
        assert told(2, "stopped") == {"wanted": "stopped", "exit_code": None, "reason": reason}
        until(lambda: place.call("GET", "/server/2/")["reason"] == reason, 30, place.logged)
        assert place.call("GET", "/server/2/")["state"] == "stopped"

        # Sometimes the kubelet no longer finds the container, and knows no exit code.
        evicted, stopped = told(1, "crashed"), told(1, "stopped")
        assert "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi." in evicted["reason"]
        assert (evicted["restarts"], stopped["wanted"]) == (0, "running")
        assert stopped["reason"]
