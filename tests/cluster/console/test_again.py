"""A server that is created while the pod of a deleted one with its id still ends."""

from __future__ import annotations

import json

import pytest

from service.servers.accessors import deleted_at, uid
from tests.cluster.console.talking import create, following, order
from tests.cluster.controller.place import Place
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace, pytest.mark.long]

SERVER = 46
SECONDS = 30


def test_nothing_of_the_pod_that_still_ends_reaches_the_next_server(place: Place) -> None:
    """No line of it, read or followed, and no command reaches it; its own pod comes as soon as that one is gone."""
    create(place, SERVER)
    first = uid(place.pod(SERVER))
    # The talker takes no notice of SIGTERM.
    patch = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": SECONDS}}}}
    kubectl = ("kubectl", "-n", place.namespace, "patch", "statefulset", f"server-{SERVER}")
    place.cluster.run(*kubectl, "--type=merge", "-p", json.dumps(patch))
    until(lambda: uid(place.pod(SERVER)) != first, 60, place.logged, not_yet=(Exception,))
    place.until_running(SERVER)
    order(place, SERVER, do="count", **{"from": 1, "to": 3, "rate": 100})
    assert "line 3 " in place.send("GET", f"/server/{SERVER}/log").text
    left = place.pod(SERVER)

    place.call("DELETE", f"/server/{SERVER}/")
    place.call("POST", f"/server/{SERVER}/", {"game": "talker", "ram_gb": 1, "disk_gb": 1, "disk": "reuse"})
    followed = following(place, SERVER, events=False)
    answers = {
        "log": place.send("GET", f"/server/{SERVER}/log"),
        "command": place.send("POST", f"/server/{SERVER}/command", {"command": "say hi"}),
    }
    server = place.call("GET", f"/server/{SERVER}/")
    pod = place.pod(SERVER)
    assert (uid(pod), bool(deleted_at(pod))) == (uid(left), True), "too late to see anything"
    assert {name: answer.status_code for name, answer in answers.items()} == {"log": 409, "command": 409}, answers
    said = {name: (answer.status_code, answer.json()["type"]) for name, answer in answers.items()}
    assert said == {"log": (409, "/problems/no-log"), "command": (409, "/problems/server-not-running")}
    assert (server["state"], server["players"], server["usage"]) == ("starting", None, None)
    assert "an earlier server with this id" in server["reason"]

    place.until_running(SERVER)
    order(place, SERVER, do="count", **{"from": 7, "to": 7, "rate": 100})
    text = ""
    for each in followed.iter_lines():
        text += f"{each.decode()}\n"
        if each.startswith(b"line 7 "):
            break
    followed.close()
    assert "line 3 " not in text + place.send("GET", f"/server/{SERVER}/log").text
    place.call("DELETE", f"/server/{SERVER}/?disk=erase")
