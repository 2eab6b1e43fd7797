"""What the installed controller does without a call, with the rights that the chart gives it."""

from collections.abc import Callable
from typing import Any

from tests.cluster.conftest import Cluster
from tests.support.waiting import until

# On a busy machine it takes seconds until a restart has made the second pod, which must have lived.
NIGHTLY = {"cron": "0 0 1 1 *", "steps": [{"restart": {}}, {"wait": 15}, {"stop": {}}]}


def test_the_installed_controller_does_its_work(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A schedule, an operation in bulk, and the events of both; `GET` shows what idle stop makes of the server."""
    id = new_server()
    server = f"/api/v1/server/{id}/"
    cluster.create(id, game="teeworlds", idle_stop_minutes=60)
    cluster.until_state(id, "running")
    uid = created_uid(cluster, id)
    until(lambda: (cluster.status(id)["idle"] or {}).get("players") == 0, 45, lambda: str(cluster.status(id)["idle"]))

    cluster.done("PUT", f"{server}schedule/nightly", NIGHTLY)
    cluster.done("POST", f"{server}schedule/nightly/run")
    until(lambda: last_run(cluster, id)["outcome"] == "succeeded", 90, lambda: str(last_run(cluster, id)))
    cluster.until_state(id, "stopped")

    asked = {"ids": [id], "action": "start"}
    operation = cluster.done("POST", "/api/v1/server/_bulk", asked)["id"]
    ended = cluster.done("GET", f"/api/v1/operation/{operation}?wait=25")
    assert (ended["state"], [each["outcome"] for each in ended["servers"]]) == ("done", ["done"])
    cluster.until_state(id, "running")

    expected = ["created", "started", "running", "stopped", "started", "stopped", "started", "running"]
    until(
        lambda: types(cluster, id, uid)[-1:] == ["running"] and len(types(cluster, id, uid)) >= 8,
        60,
        lambda: str(types(cluster, id, uid)),
    )
    # The second pod lived for some seconds, so it may or may not have answered.
    assert without_second_running(types(cluster, id, uid)) == expected


def created_uid(cluster: Cluster, id: int) -> str:
    """The uid of the server with this id, from its event `created`."""
    uids: list[str] = []

    def reached() -> bool:
        nonlocal uids
        uids = [event["uid"] for event in events(cluster, id) if event["type"] == "created"]
        return bool(uids)

    until(reached, 20)
    return uids[-1]


def last_run(cluster: Cluster, id: int) -> dict[str, Any]:
    run: dict[str, Any] = cluster.done("GET", f"/api/v1/server/{id}/schedule/nightly")["last_run"]
    return run


def events(cluster: Cluster, id: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.done("GET", f"/api/v1/event/?server={id}&limit=500")["events"]
    return found


def types(cluster: Cluster, id: int, uid: str) -> list[str]:
    return [event["type"] for event in events(cluster, id) if event["uid"] == uid]


def without_second_running(types: list[str]) -> list[str]:
    """The types, without the `running` of the pod that the schedule stops at once."""
    return [type_ for number, type_ in enumerate(types) if not (number == 5 and type_ == "running")]
