"""How a game's container ended, in plain words, and whether that was a crash. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.kube.types import Object
from service.servers.accessors import condition, deleted_at, game_container, readable_size, seconds_between, termination

# How a program ends that was asked to by a signal and does not make its own end of it: 128 and the signal's number. A
# Java machine ends so once its shutdown hooks, among them Minecraft's save, are done.
# https://docs.oracle.com/en/java/javase/21/docs/api/java.base/java/lang/Runtime.html#shutdown
_ASKED = {0, 130, 143}
_KILLED = 137


def exit_reason(pod: Object, end: Mapping[str, Any]) -> str:
    """What became of a run, as a sentence."""
    if end.get("reason") == "OOMKilled":
        return f"The game ran out of memory{_limit(pod)}."
    if end.get("reason") in {"StartError", "ContainerCannotRun"}:
        return f"The game could not be started: {end.get('message', '')}"
    if (seconds := startup_timeout(pod, end)) is not None:
        return f"The game did not answer within {seconds} s of its start and was ended."
    code = end.get("exitCode")
    if code == 0:
        return "The game ended by itself (exit code 0)."
    if end.get("signal"):
        return f"The game was ended by signal {end['signal']}."
    return f"The game crashed (exit code {code})."


def exited_by_itself(pod: Object, end: Mapping[str, Any]) -> bool:
    """Whether the game had answered in that run and then ended by itself, as by its own command: that is no crash."""
    return end.get("exitCode") == 0 and _answered(pod, end) is True


def startup_timeout(pod: Object, end: Mapping[str, Any]) -> int | None:
    """The seconds that the game had to answer in, where the kubelet ended it for not having done so; else None.

    Kubernetes says so in an event's wording alone. What shows it besides: the game was not ready in that run, which
    took as long as the startup probe allows. The first try comes up to a period after the start, so the last may
    come a period early. https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
    """
    probe = game_container(pod).get("startupProbe")
    took = seconds_between(end.get("startedAt"), end.get("finishedAt"))
    if probe is None or took is None or _answered(pod, end) is not False:
        return None
    period, delay = probe.get("periodSeconds", 10), probe.get("initialDelaySeconds", 0)
    allowed = int(delay + period * probe.get("failureThreshold", 3))
    # Whatever the exit code: of SIGTERM a game makes what it likes, and its save may fail.
    return allowed if took >= max(allowed - period, 1) else None


def failed_stop_reason(pod: Object) -> str | None:
    """Of a deleted pod that has ended: what went wrong as the game stopped, or None where nothing did."""
    end = termination(pod)
    if end is None or end.get("exitCode") in _ASKED:
        return None
    if end.get("reason") == "OOMKilled":
        return f"The game ran out of memory as it stopped{_limit(pod)}; what it had not saved is lost."
    if end.get("reason") == "ContainerStatusUnknown":
        return "Its node lost track of the game as it stopped; nobody saw whether it saved its world."
    if end.get("exitCode") == _KILLED:
        grace = pod["metadata"].get("deletionGracePeriodSeconds")
        took = seconds_between(deleted_at(pod), end.get("finishedAt"))
        # Times are in whole seconds, and by two clocks.
        if grace is None or took is None or took < grace - 2:
            return "The game was killed as it stopped (exit code 137); what it had not saved is lost."
        return f"The game had not stopped after {grace} s and was killed; what it had not saved is lost."
    return f"The game failed as it stopped (exit code {end.get('exitCode')}); its last save may be incomplete."


def exited_before_deletion(pod: Object) -> bool:
    """Of a deleted pod that has ended: whether the game's last run was over before its deletion was asked for."""
    between = seconds_between(deleted_at(pod), (termination(pod) or {}).get("finishedAt"))
    return between is not None and between < 0


def _answered(pod: Object, end: Mapping[str, Any]) -> bool | None:
    """Whether the game was ready at any time of that run; None where nobody knows.

    A pod that was ready in it ceased to be so in it, or at its end; after a run in which it never was, the last time
    that this changed lies before the run.
    """
    changed = condition(pod, "Ready").get("lastTransitionTime")
    since_start = seconds_between(end.get("startedAt"), changed)
    return None if since_start is None else since_start > 0


def _limit(pod: Object) -> str:
    limit = game_container(pod).get("resources", {}).get("limits", {}).get("memory")
    return f" (its limit is {readable_size(limit)})" if limit else ""
