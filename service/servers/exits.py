"""Describes how a game's container exited, and decides whether that was a crash. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.kube.types import Object
from service.servers.accessors import (
    condition,
    deleted_at,
    game_container,
    game_status,
    readable_size,
    seconds_between,
    termination,
)

# Exit codes of a clean stop. A program that a signal stops exits with 128 plus the signal's number, unless it handles
# the signal itself. A Java VM does so once its shutdown hooks have finished, among them Minecraft's save.
# https://docs.oracle.com/en/java/javase/21/docs/api/java.base/java/lang/Runtime.html#shutdown
_CLEAN_EXITS = {0, 130, 143}
_KILLED = 137
# The kubelet's word and containerd's for a container that is gone, such as after its node was reset. The exit code
# that they give it, 137 or 255, is made up.
# https://github.com/containerd/containerd/blob/v2.2.0/internal/cri/server/podsandbox/recover.go
_LOST_TRACK = {"ContainerStatusUnknown", "Unknown"}


def exit_code(end: Mapping[str, Any]) -> int | None:
    """The exit code of a run, from its `terminated` state; None if nobody knows it."""
    code: int | None = end.get("exitCode")
    return None if lost_track(end) else code


def lost_track(end: Mapping[str, Any]) -> bool:
    """Whether the run ended unseen, as when its node was reset. `end` is its `terminated` state."""
    return end.get("reason") in _LOST_TRACK


def exit_reason(pod: Object, end: Mapping[str, Any]) -> str:
    """Why a run of the game ended, as a sentence.

    Args:
        pod: The pod.
        end: The run's `terminated` state from the container's status.
    """
    if end.get("reason") == "OOMKilled":
        return f"The game ran out of memory{_limit(pod)}."
    if lost_track(end):
        return "Its node restarted or lost track of the game. How the game ended is unknown."
    if end.get("reason") in {"StartError", "ContainerCannotRun"}:
        return f"The game could not be started: {end.get('message', '')}"
    if (seconds := startup_timeout(pod, end)) is not None:
        return f"The game did not answer within {seconds} s of its start and was stopped."
    code = end.get("exitCode")
    if code == 0:
        return "The game ended by itself (exit code 0)."
    if end.get("signal"):
        return f"The game was stopped by signal {end['signal']}."
    return f"The game crashed (exit code {code})."


def exited_by_itself(pod: Object, end: Mapping[str, Any]) -> bool:
    """Whether the game answered in that run and then ended by itself, as by its own command: that is no crash."""
    return end.get("exitCode") == 0 and _answered(pod, end) is True


def startup_timeout(pod: Object, end: Mapping[str, Any]) -> int | None:
    """How many seconds the game had to answer, if the kubelet stopped it because it did not; otherwise None.

    Kubernetes says this only in an event's message. It also follows from two facts: the game was not ready in that run,
    and the run took as long as the startup probe allows. The first probe comes up to a period after the start, so the
    last may come a period early. https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
    """
    probe = game_container(pod).get("startupProbe")
    duration = seconds_between(end.get("startedAt"), end.get("finishedAt"))
    if probe is None or duration is None or _answered(pod, end) is not False:
        return None
    period, delay = probe.get("periodSeconds", 10), probe.get("initialDelaySeconds", 0)
    allowed = int(delay + period * probe.get("failureThreshold", 3))
    # Whatever the exit code: a game may handle SIGTERM in any way, and its save may fail.
    return allowed if duration >= max(allowed - period, 1) else None


def runs(pod: Object) -> bool:
    """Whether a run of the game has begun, and has not ended as far as its node has said."""
    return "running" in ((game_status(pod) or {}).get("state") or {})


def failed_stop_reason(pod: Object, *, removed: bool = False) -> str | None:
    """What went wrong as the game of a deleted pod stopped; None if nothing did, or if it has not stopped.

    Args:
        pod: The pod.
        removed: Whether this is the version that Kubernetes removed. A pod that is deleted by force, or whose node was
            removed, may go before its game has ended.
    """
    end = termination(pod)
    if end is None and removed and runs(pod):
        return "Its pod was removed before its game had ended. Whether it saved its world, or still runs, is unknown."
    if end is None or end.get("exitCode") in _CLEAN_EXITS:
        return None
    # An image that still downloads its game may not react to a stop at all.
    lost = "it was not ready for players yet" if _answered(pod, end) is False else "unsaved progress is lost"
    if end.get("reason") == "OOMKilled":
        return f"The game ran out of memory as it stopped{_limit(pod)}; {lost}."
    if lost_track(end):
        return "Its node lost track of the game as it stopped. Whether it saved its world is unknown."
    if end.get("exitCode") == _KILLED:
        grace = pod["metadata"].get("deletionGracePeriodSeconds")
        duration = seconds_between(deleted_at(pod), end.get("finishedAt"))
        # The times are in whole seconds, and from two clocks.
        if grace is None or duration is None or duration < grace - 2:
            return f"The game was killed as it stopped (exit code 137); {lost}."
        return f"The game had not stopped after {grace} s and was killed; {lost}."
    return f"The game failed as it stopped (exit code {end.get('exitCode')}); its last save may be incomplete."


def killed_by_stop(pod: Object) -> bool:
    """Whether the game of a deleted pod was killed as it stopped."""
    end = termination(pod) or {}
    return exit_code(end) == _KILLED or end.get("reason") == "OOMKilled"


def exited_before_deletion(pod: Object, *, ran: bool) -> bool:
    """Whether the last run of a deleted pod's game ended before the deletion was requested.

    Args:
        pod: The pod.
        ran: Whether a version of the pod was seen whose deletion was requested and whose game still ran. Otherwise the
            times decide, which are from two clocks: the end's from the node, the request's from Kubernetes' API.
    """
    if ran:
        return False
    between = seconds_between(deleted_at(pod), (termination(pod) or {}).get("finishedAt"))
    return between is not None and between < 0


def _answered(pod: Object, end: Mapping[str, Any]) -> bool | None:
    """Whether the game was ready at any time in that run; None if that is unknown.

    A pod that was ready in the run became unready in it or at its end. If it never was ready in the run, its readiness
    last changed before the run.
    """
    changed = condition(pod, "Ready").get("lastTransitionTime")
    since_start = seconds_between(end.get("startedAt"), changed)
    return None if since_start is None else since_start > 0


def _limit(pod: Object) -> str:
    limit = game_container(pod).get("resources", {}).get("limits", {}).get("memory")
    return f" (its limit is {readable_size(limit)})" if limit else ""
