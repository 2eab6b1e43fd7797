"""What has happened to a server, from its objects: the facts, and the events that follow from them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.events.changes import Told, changes, missing, tell_apart
from service.events.event import Event
from service.events.facts import Facts, facts_of
from service.events.state import _read, _written
from service.kube.times import stamp
from service.kube.types import Object
from service.servers.objects import ServerObjects
from service.servers.usage import Usage

AT = "2026-11-27T04:00:00Z"
LATER = "2026-11-27T04:05:00Z"


AT_ONCE: dict[str, Any] = {"deletionTimestamp": "2026-11-27T04:05:30Z", "deletionGracePeriodSeconds": 0}


def statefulset(*, replicas: int = 1, version: int = 10, generation: int = 1, **record: Any) -> Object:
    fields = {"uid": "u", "customer": "acme", "game": "teeworlds", "ram_gb": 1, "disk_gb": 2, **record}
    return {
        "metadata": {
            "uid": "w",
            "resourceVersion": str(version),
            "generation": generation,
            "creationTimestamp": AT,
            "annotations": {"gameserver/server": json.dumps(fields)},
        },
        "spec": {"replicas": replicas},
    }


def pod(*, version: int = 20, ready: bool = False, uid: str = "p", **status: Any) -> Object:
    container = {"name": "game", "restartCount": 0, "state": {"running": {"startedAt": AT}}, **status}
    return {
        "metadata": {
            "uid": uid,
            "resourceVersion": str(version),
            "creationTimestamp": AT,
            "ownerReferences": [{"controller": True, "uid": "w"}],
        },
        "spec": {"containers": [{"name": "game", "resources": {"limits": {"memory": "1Gi"}}}], "nodeName": "n"},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": LATER}],
            "containerStatuses": [container],
        },
    }


def terminated(code: int = 1, reason: str = "Error", id: str = "") -> dict[str, Any]:
    return {
        "terminated": {
            "exitCode": code, "reason": reason, "startedAt": AT, "finishedAt": LATER, "containerID": id
        }
    }  # fmt: skip


def facts(pod: Object | None = None, *, gone: bool = False, **more: Any) -> Facts:
    return facts_of(ServerObjects(1, statefulset=statefulset(**more), pod=pod), AT, pod_gone=gone)


RUNNING = changes((), facts(pod(ready=True)))[1]
"""What is told of a server that runs."""


def told_after(*seen: Facts, begin: tuple[Told, ...] = RUNNING) -> list[Event]:
    events: list[Event] = []
    for each in seen:
        new, begin = changes(begin, each)
        events += new
    return events


def types(*seen: Facts) -> list[str]:
    return [event.type for event in told_after(*seen)]


def test_a_server_that_begins_to_run_gives_three_events() -> None:
    """Each with its time and what it is about."""
    events, _ = changes((), facts(pod(ready=True)))
    assert [(event.type, event.time, event.data) for event in events] == [
        ("created", AT, {"game": "teeworlds", "ram_gb": 1, "disk_gb": 2}),
        ("started", AT, {}),
        ("running", LATER, {"restarts": 0}),
    ]
    assert {(event.server, event.uid, event.customer) for event in events} == {(1, "u", "acme")}


def test_the_same_facts_tell_nothing_again() -> None:
    """And other observers compute the same ids, whatever they saw before."""
    events, told = changes((), facts(pod(ready=True)))
    assert changes(told, facts(pod(ready=True))) == ([], told)
    alone = [*told_after(facts(), facts(pod()), facts(pod(ready=True)), begin=())]
    assert [event.id for event in alone] == [event.id for event in events]


@pytest.mark.parametrize(
    ("state", "type_", "reason"),
    [
        (terminated(1), "crashed", "The game crashed (exit code 1)."),
        (terminated(137, "OOMKilled"), "out-of-memory", "The game ran out of memory (its limit is 1 GiB)."),
        (terminated(0, "Completed"), "exited", "The game ended by itself (exit code 0)."),
    ],
)
def test_the_end_of_a_run_says_how(state: Object, type_: str, reason: str) -> None:
    """Also once Kubernetes waits before the next one, under the same id."""
    [event] = told_after(facts(pod(version=21, state=state)))
    code = state["terminated"]["exitCode"]
    assert (event.type, event.time) == (type_, LATER)
    assert event.data == {"restarts": 0, "exit_code": code, "reason": reason}
    backing_off = pod(version=22, state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=state, containerID="")
    assert [each.id for each in told_after(facts(backing_off))] == [event.id]


@pytest.mark.parametrize("state", [terminated(255, "Unknown"), terminated(137, "ContainerStatusUnknown")])
def test_nobody_knows_how_a_run_ended_on_a_node_that_was_reset(state: Object) -> None:
    """The exit code is then one that containerd or the kubelet made up."""
    [event] = told_after(facts(pod(version=21, state=state)))
    reason = "Its node restarted or lost track of the game. How the game ended is unknown."
    assert event.data == {"restarts": 0, "exit_code": None, "reason": reason}


def test_a_pod_that_its_node_ended_has_not_ended_by_itself() -> None:
    """Its game saved and exited with 0, and only an event says why. The pod is deleted right after that."""
    evicted = {"reason": "Evicted", "message": "Pod ephemeral local storage usage exceeds 20Mi. "}
    reason = "The server's node stopped it: Pod ephemeral local storage usage exceeds 20Mi."
    over = pod(version=21, state=terminated(0, "Completed"))
    over["status"]["phase"] = "Succeeded"
    gone = {**over, "metadata": {**over["metadata"], **AT_ONCE, "resourceVersion": "22"}}
    objects = ServerObjects(1, statefulset=statefulset(), events=({**evicted, "involvedObject": {"uid": "p"}},))
    seen = [facts_of(replace(objects, pod=over), AT), facts_of(replace(objects, pod=gone), AT, pod_gone=True)]
    assert [(event.type, event.data) for event in told_after(*seen)] == [
        ("crashed", {"restarts": 0, "exit_code": 0, "reason": reason}),
        ("stopped", {"wanted": "running", "exit_code": None, "reason": reason}),
    ]


def test_a_container_that_its_node_has_lost_while_it_evicted_the_pod_has_ended_once() -> None:
    """The kubelet counts a restart for it, and shows a container that waits. Seen with Kubernetes 1.35."""
    lost = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": None, "finishedAt": None}}
    over = pod(version=21, state={"waiting": {"reason": "ContainerCreating"}}, lastState=lost, restartCount=1)
    over["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}
    gone = {**over, "metadata": {**over["metadata"], **AT_ONCE, "resourceVersion": "22"}}
    unknown = "Its node lost track of the game as it stopped. Whether it saved its world is unknown."
    assert [(event.type, event.data) for event in told_after(facts(over), facts(gone, gone=True))] == [
        ("crashed", {"restarts": 0, "exit_code": None, "reason": "The node was low on memory."}),
        ("stopped", {"wanted": "running", "exit_code": None, "reason": unknown}),
    ]


def test_a_pod_that_was_removed_before_its_game_had_ended_is_no_clean_stop() -> None:
    """Unless it just was gone when the watch came back: then nobody knows."""
    stopping = pod(version=21)
    stopping["metadata"] |= AT_ONCE
    objects = ServerObjects(1, statefulset=statefulset(replicas=0), pod=stopping)
    [event] = told_after(facts_of(objects, AT, pod_gone=True, pod_removed=LATER))
    assert (event.type, event.time, event.data["exit_code"]) == ("stopped", LATER, None)
    assert event.data["reason"] == (
        "Its pod was removed before its game had ended. Whether it saved its world, or still runs, is unknown."
    )
    [event] = told_after(facts_of(objects, AT, pod_gone=True))
    assert event.data == {"wanted": "stopped", "exit_code": None, "reason": None}


def test_n_restarts_give_n_events() -> None:
    """Of those whose end Kubernetes has overwritten, nothing is known but that they were."""
    seen = facts(pod(version=30, restartCount=3, lastState=terminated(2), ready=True))
    events = told_after(seen)
    assert [event.type for event in events] == ["crashed", "crashed", "crashed", "running"]
    assert [event.data for event in events] == [
        {"restarts": 0, "exit_code": None, "reason": None},
        {"restarts": 1, "exit_code": None, "reason": None},
        {"restarts": 2, "exit_code": 2, "reason": "The game crashed (exit code 2)."},
        {"restarts": 3},
    ]
    assert events[0].time == AT, "the latest that it can have been: when the next known run began"


@pytest.mark.parametrize(
    ("state", "type_", "reason"),
    [
        (terminated(143), "stopped", None),
        (terminated(0, "Completed"), "stopped", None),
        (terminated(3), "stopped", "The game failed as it stopped (exit code 3); its last save may be incomplete."),
        (terminated(137), "killed", "The game was killed as it stopped (exit code 137); unsaved progress is lost."),
    ],
)
def test_a_stop_says_how_it_went(state: Object, type_: str, reason: str | None) -> None:
    """An end that was asked for is no crash. The last version of the pod says nothing more."""
    stopping = pod(version=21, state=state)
    stopping["metadata"] |= {"deletionTimestamp": "2026-11-27T04:05:30Z", "deletionGracePeriodSeconds": 60}
    code = state["terminated"]["exitCode"]
    events = told_after(facts(stopping, replicas=0), facts(stopping, gone=True, replicas=0))
    assert [(event.type, event.data) for event in events] == [
        (type_, {"wanted": "stopped", "exit_code": code, "reason": reason})
    ]


def test_another_pod_follows_the_end_of_the_one_before() -> None:
    """Also if nobody saw how that ended, which then its record says."""
    seen = facts(pod(version=40, uid="q"))
    assert types(seen) == ["stopped", "started"]
    record = {"pod": "p", "at": LATER, "reason": "The game was killed.", "killed": True}
    restarted = statefulset()
    restarted["metadata"]["annotations"]["gameserver/last-stop"] = json.dumps(record)
    stopped = told_after(facts_of(ServerObjects(1, statefulset=restarted, pod=pod(version=40, uid="q")), AT))[0]
    assert (stopped.type, stopped.time, stopped.data["reason"]) == ("killed", LATER, "The game was killed.")


def test_what_is_missing_is_told_only_once_it_is_sure() -> None:
    """A watch may be behind what another controller has told."""
    empty, gone = facts(replicas=0), Facts(1, AT, exists=False)
    assert types(empty) == []
    assert missing(RUNNING, empty) == {"p"}
    assert types(replace(empty, sure=True)) == ["stopped"]
    assert types(gone) == []
    assert missing(changes(RUNNING, replace(empty, sure=True))[1], gone) == {"u"}
    assert types(replace(gone, sure=True)) == ["stopped", "deleted"]


def test_a_server_without_a_statefulset_is_not_deleted() -> None:
    """While there is a release, a start brings it back."""
    assert types(Facts(1, AT, exists=True, sure=True)) == ["stopped"]


def test_an_id_that_is_used_again_is_another_server() -> None:
    """The earlier one ends, under its own uid and customer; old facts do not bring it back."""
    other = facts(pod(version=50, uid="q"), uid="v", customer="other", version=45)
    other = replace(other, workload="w2", pod=other.pod and replace(other.pod, owner="w2"))
    events, told = changes(RUNNING, replace(other, sure=True))
    assert [(event.type, event.uid, event.customer) for event in events] == [
        ("stopped", "u", "acme"), ("deleted", "u", "acme"), ("created", "v", "other"), ("started", "v", "other")
    ]  # fmt: skip
    assert changes(told, facts(pod(ready=True)))[0] == []


def test_older_facts_change_nothing() -> None:
    """A controller that takes over goes through what it saw minutes ago."""
    seen = [
        facts(pod()),
        facts(pod(version=21, ready=True)),
        facts(pod(version=22, state=terminated())),
        facts(pod(version=23, restartCount=1, lastState=terminated(), ready=True)),
    ]
    told: tuple[Told, ...] = ()
    for each in seen:
        told = changes(told, each)[1]
    assert [changes(told, each)[0] for each in seen] == [[], [], [], []]


def test_an_end_beside_an_older_statefulset_is_told_with_what_was_wanted_last() -> None:
    """The watch of the pods may be ahead of that of the StatefulSets."""
    stopping = changes(RUNNING, facts(pod(ready=True), version=30, replicas=0))[1]
    ended = pod(version=40, state=terminated(0, "Completed"))
    ended["metadata"].update(deletionTimestamp=LATER, deletionGracePeriodSeconds=0)
    assert [(event.type, event.data["wanted"]) for event in told_after(facts(ended), begin=stopping)] == [
        ("stopped", "stopped")
    ]


def test_a_suspension_is_told_when_it_begins_and_ends() -> None:
    """Not when its reason changes; and one without a time, which an operator has made by hand, as well."""
    suspended = facts(replicas=0, version=11, suspended={"since": AT, "reason": "unpaid"})
    renamed = facts(replicas=0, version=12, suspended={"since": AT, "reason": "still unpaid"})
    by_hand = facts(replicas=0, version=14, generation=4, suspended={"reason": "abuse"})
    events = told_after(suspended, renamed, facts(version=13), by_hand, replace(by_hand, generation=5))
    told = [(event.type, event.data.get("reason")) for event in events]
    assert told == [("suspended", "unpaid"), ("unsuspended", None), ("suspended", "abuse")]


def test_a_time_that_is_none_is_when_it_was_seen() -> None:
    """Somebody may have written it by hand, and who reads events reads times."""
    [event] = told_after(facts(replicas=0, version=11, suspended={"since": "yesterday", "reason": "abuse"}))
    assert (event.type, event.time) == ("suspended", AT)


def test_an_idle_stop_is_told_once() -> None:
    """By its time."""
    assert types(facts(replicas=0, version=11, idle_stopped=AT), facts(version=12, idle_stopped=AT)) == ["idle-stopped"]


def test_a_disk_is_full_once_until_it_is_freed() -> None:
    """A little less than full is still full."""

    def used(percent: int) -> Facts:
        now = stamp(datetime.now(UTC))
        usage = Usage(now, enforced=True, used=percent, size=100)
        return facts_of(ServerObjects(1, statefulset=statefulset(), pod=pod(ready=True), usage=usage), AT)

    events = told_after(used(50), used(100), used(95), used(100), used(50), used(100))
    assert [event.type for event in events] == ["disk-full", "disk-full"]
    assert len({event.id for event in events}) == 2


def test_a_server_without_a_node_is_told_once() -> None:
    """With what the scheduler says."""
    waiting = pod(version=21, uid="q")
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    waiting["status"]["conditions"].append({**condition, "lastTransitionTime": LATER})
    events = told_after(facts(waiting), facts(waiting), begin=())
    assert [event.type for event in events] == ["created", "started", "unschedulable"]
    assert "0/1 nodes" in events[-1].data["reason"]


def test_a_refused_pod_is_unschedulable() -> None:
    """Once for as long as it is refused, although the events about it change."""
    event = {
        "reason": "FailedCreate", "message": "exceeded quota: q", "involvedObject": {"uid": "w"}, "firstTimestamp": AT
    }  # fmt: skip
    objects = ServerObjects(1, statefulset=statefulset(), events=(event,))
    seen = facts_of(objects, AT)
    events = told_after(seen, seen, begin=())
    assert [(each.type, each.time) for each in events] == [("created", AT), ("unschedulable", AT)]
    assert events[1].data["reason"] == "A quota refused the server's pod: q"


def test_a_later_pod_that_is_refused_is_another_event() -> None:
    """Also after a pod that was evicted, which changes nothing of the StatefulSet."""
    refused = replace(facts(), refused=("A quota refused the server's pod: q", AT))
    first = told_after(refused, begin=())
    begin = changes(changes((), refused)[1], facts(pod(ready=True)))[1]
    later = told_after(facts(pod(version=21), gone=True), refused, begin=begin)
    assert [(event.type, event.time) for event in later] == [("stopped", AT), ("unschedulable", AT)]
    assert tell_apart(later, lambda id: id == first[-1].id) == later


def test_a_lost_node_is_told_each_time() -> None:
    """Once until the pod is ready again."""
    lost, back = pod(version=21), pod(version=22, ready=True)
    lost["status"]["conditions"].append({"type": "ContainersReady", "status": "True"})
    again = {**lost, "metadata": {**lost["metadata"], "resourceVersion": "23"}}
    events = told_after(facts(lost), facts(lost), facts(back), facts(again))
    assert [event.type for event in events] == ["node-lost", "node-lost"]
    assert len({event.id for event in events}) == 2


def test_what_comes_before_an_event_of_the_log_is_left_out() -> None:
    """Another controller did not see it, and the order has to hold."""
    events, _ = changes((), facts(pod(ready=True)))
    assert tell_apart(events, lambda id: False) == events
    assert tell_apart(events, lambda id: id == events[1].id) == events[2:]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            Told,
            uid=st.text(max_size=5),
            customer=st.text(max_size=5),
            number=st.integers(0, 10**6),
            pod=st.text(max_size=5),
            ended=st.booleans(),
            ends=st.integers(0, 99),
            suspended=st.text(max_size=5),
        ),
        max_size=3,
    )
)
def test_what_was_told_is_read_as_it_was_written(told: list[Told]) -> None:
    """Whatever it is; what only a later version knows is left out."""
    text = _written(told)
    assert _read(text) == tuple(told)
    assert _read(json.dumps([{**each, "new": 1} for each in json.loads(text)])) == tuple(told)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.data())
def test_each_run_gives_one_end_however_much_is_seen(restarts: list[int], data: st.DataObject) -> None:
    """Any part of a pod's versions gives the ends of all its runs, in order, under the same ids."""
    counts = sorted(restarts)
    versions = [
        facts(pod(version=100 + number, restartCount=count, lastState=terminated() if count else {}, ready=True))
        for number, count in enumerate(counts)
    ]
    kept = data.draw(st.lists(st.booleans(), min_size=len(versions), max_size=len(versions)))
    some = [each for each, is_kept in zip(versions, kept, strict=True) if is_kept and each is not versions[-1]]

    def ends(seen: list[Facts]) -> list[str]:
        return [event.id for event in told_after(*seen, begin=()) if event.type == "crashed"]

    assert ends(some + versions[-1:]) == ends(versions)
    assert len(ends(versions)) == counts[-1]
