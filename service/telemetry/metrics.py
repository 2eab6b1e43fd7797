"""Prometheus metrics, on a port of their own.

The process has one registry; other modules count with the functions here.
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service import __version__

log = logging.getLogger(__name__)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)
Info("gameserver_api_build", "The version of the API.", registry=REGISTRY).info({"version": __version__})

FOLLOWED = ("log", "progress")
"""What clients can follow."""
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})

# The route, never the path: an id in a label would make one series per server.
_requests = Histogram(
    "gameserver_api_request_duration_seconds",
    "Requests by route, method and status code, and how long they took.",
    ["route", "method", "code"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
_helm = Histogram(
    "gameserver_api_helm_duration_seconds",
    "Helm operations by kind (install, change, upgrade, uninstall, restore, converge) and outcome, and how long they "
    "took.",
    ["kind", "outcome"],
    buckets=(0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 120),
    registry=REGISTRY,
)
_recovered = Counter(
    "gameserver_api_recovered_releases",
    "Releases that a stopped replica had left unfinished and that were recovered.",
    registry=REGISTRY,
)
_daemon = Gauge(
    "gameserver_api_helm_daemon_up",
    "Whether helm-daemon runs. While it is 0, each write starts a helm process.",
    registry=None,
)
_daemon_starts = Counter("gameserver_api_helm_daemon_starts", "How often helm-daemon has started.", registry=None)
_waiting = Gauge(
    "gameserver_api_waiting_calls",
    "Calls that wait for their answer (`wait=…`) without holding a thread.",
    registry=REGISTRY,
)

_followers = Gauge(
    "gameserver_api_followers",
    "Clients with an answer that goes on, by what they follow (log, progress).",
    ["kind"],
    registry=REGISTRY,
)
_refused_followers = Counter(
    "gameserver_api_followers_refused",
    "Clients that could not follow a log or a start, by what they wanted to follow and by which limit was reached: "
    "the token's, the replica's, or that of the logs that a replica reads.",
    ["kind", "limit"],
    registry=REGISTRY,
)
# The first that is refused must be seen to add something.
for _kind, _limit in (("log", "logs"), *((kind, limit) for kind in FOLLOWED for limit in ("token", "replica"))):
    _refused_followers.labels(_kind, _limit)
    _followers.labels(_kind)
_followed_logs = Gauge("gameserver_api_followed_logs", "Logs of games that this replica reads now.", registry=REGISTRY)
_log_gaps = Counter(
    "gameserver_api_log_gaps", "How often a follower of a log was told that lines are missing.", registry=REGISTRY
)
_log_dropped = Counter(
    "gameserver_api_log_dropped_bytes",
    "What followers of logs have not been sent because they had not read what came before.",
    registry=REGISTRY,
)
_commands = Histogram(
    "gameserver_api_command_duration_seconds",
    "Commands for games by outcome (success, or a problem's slug), and how long they took with their wait.",
    ["outcome"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 25),
    registry=REGISTRY,
)

_bulk_servers = Gauge(
    "gameserver_bulk_servers",
    "Servers of unfinished operations by what they are at (pending, waiting, running).",
    ["outcome"],
    registry=None,
)
_bulk_lag = Gauge(
    "gameserver_bulk_lag_seconds",
    "For how long no step of an operation has begun or ended although one could; 0 if none could.",
    registry=None,
)
_bulk_steps = Counter(
    "gameserver_bulk_steps", "Steps of operations by action and outcome.", ["action", "outcome"], registry=None
)

_asked = Counter(
    "gameserver_idle_questions",
    "How often the controller has asked a game for its players, by whether the game said it (known, unknown).",
    ["answer"],
    registry=REGISTRY,
)
_idle_stops = Counter(
    "gameserver_idle_stops",
    "Servers that the controller wanted to stop because nobody played, by outcome (success, or a problem's slug).",
    ["outcome"],
    registry=REGISTRY,
)
_active = Gauge("gameserver_controller_active", "Whether this pod is the active controller.", registry=None)
"""Registered by `show_active`, with the metrics of operations, because only the controller's pods have them."""


def _add(*collectors: Collector) -> None:
    """Add metrics that only some processes have, unless they are there already."""
    for collector in collectors:
        if collector not in REGISTRY._collector_to_names:
            REGISTRY.register(collector)


def count_request(route: str, method: str, code: int, seconds: float) -> None:
    """Count one answered request."""
    # A client can invent methods, and each would add a dozen series for good.
    _requests.labels(route, method if method in _METHODS else "other", str(code)).observe(seconds)


def count_helm_operation(kind: str, outcome: str, seconds: float) -> None:
    """Count one helm operation; `kind` comes from helm/releases.py, `outcome` is `success` or a problem's slug."""
    _helm.labels(kind, outcome).observe(seconds)


def count_recovery() -> None:
    """Count one unfinished release that was recovered."""
    _recovered.inc()


def show_helm_daemon(runs: bool) -> None:
    """Show whether helm-daemon runs; the first call adds the metrics."""
    _add(_daemon, _daemon_starts)
    _daemon.set(runs)
    if runs:
        _daemon_starts.inc()


def show_waiting_calls(count: int) -> None:
    """Show how many calls wait for their answer."""
    _waiting.set(count)


def show_followers(counts: Mapping[str, int]) -> None:
    """Show how many clients follow what; see `FOLLOWED`."""
    for kind in FOLLOWED:
        _followers.labels(kind).set(counts.get(kind, 0))


def count_refused_follower(kind: str, limit: str) -> None:
    """Count a client that could not follow, by which limit was reached: `token`, `replica` or `logs`."""
    _refused_followers.labels(kind, limit).inc()


def show_followed_logs(count: int) -> None:
    """Show how many logs of games are read for followers."""
    _followed_logs.set(count)


def count_log_gap() -> None:
    """Count one follower that was told that lines are missing."""
    _log_gaps.inc()


def count_log_bytes_dropped(size: int) -> None:
    """Count what a follower was not sent, in bytes of server-sent events."""
    _log_dropped.inc(size)


def count_command(outcome: str, seconds: float) -> None:
    """Count one command for a game; `outcome` is `success` or a problem's slug."""
    _commands.labels(outcome).observe(seconds)


def count_players_asked(*, known: bool) -> None:
    """Count one question to a game for its players, and whether it said how many there are."""
    _asked.labels("known" if known else "unknown").inc()


def count_idle_stop(outcome: str) -> None:
    """Count one stop of a server on which nobody plays; `outcome` is `success` or a problem's slug."""
    _idle_stops.labels(outcome).inc()


class _Servers(Collector):
    """Counts the servers by game and state at each scrape."""

    def __init__(self, servers: Callable[[], Iterable[Mapping[str, str]]]) -> None:
        self._servers = servers

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [self._family()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = self._family()
        try:
            tally = Tally((server["game"], server["state"]) for server in self._servers())
        except Exception:
            # While the cluster cannot be read, leave out this series; the rest of the scrape still counts.
            log.warning("could not count the servers for /metrics", exc_info=True)
            return
        for (game, state), count in sorted(tally.items()):
            family.add_metric([game, state], count)
        yield family

    @staticmethod
    def _family() -> GaugeMetricFamily:
        return GaugeMetricFamily("gameserver_servers", "Servers by game and state.", labels=["game", "state"])


def count_servers(servers: Callable[[], Iterable[Mapping[str, str]]]) -> None:
    """Add to `/metrics` the count of what `servers()` yields: one mapping with `game` and `state` per server."""
    REGISTRY.register(_Servers(servers))


class Disk(Protocol):
    """What is counted of a disk; see `operations.census.CountedDisk`."""

    @property
    def enforced(self) -> str: ...
    @property
    def fill(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def used(self) -> int | None: ...


class _Disks(Collector):
    """Counts the disks, and sums up their sizes and use, at each scrape."""

    def __init__(self, disks: Callable[[], Iterable[Disk]]) -> None:
        self._disks = disks

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        counts, sizes, uses = families = self._families()
        count: Tally[tuple[str, str]] = Tally()
        size: Tally[str] = Tally()
        used: Tally[str] = Tally()
        try:
            for disk in self._disks():
                count[disk.enforced, disk.fill] += 1
                size[disk.enforced] += disk.size
                if disk.used is not None:
                    used[disk.enforced] += disk.used
        except Exception:
            log.warning("could not count the disks for /metrics", exc_info=True)
            return
        for (enforced, fill), number in sorted(count.items()):
            counts.add_metric([enforced, fill], number)
        for family, tally in ((sizes, size), (uses, used)):
            for enforced, number in sorted(tally.items()):
                family.add_metric([enforced], number)
        yield from families

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily(
                "gameserver_server_disks",
                "Disks by whether their size is a limit, and by how full they are.",
                labels=["enforced", "fill"],
            ),
            GaugeMetricFamily(
                "gameserver_server_disk_size_bytes",
                "The sizes of all disks together, by whether they are a limit.",
                labels=["enforced"],
            ),
            GaugeMetricFamily(
                "gameserver_server_disk_used_bytes",
                "What is used of all disks together, where that is known.",
                labels=["enforced"],
            ),
        )


def count_disks(disks: Callable[[], Iterable[Disk]]) -> None:
    """Add to `/metrics` the counts and sums of what `disks()` yields."""
    REGISTRY.register(_Disks(disks))


_events = Counter("gameserver_events", "Events written to the log, by type.", ["type"], registry=None)
_event_lag = Histogram(
    "gameserver_event_lag_seconds",
    "From when something happened, in whole seconds, until its event was in the log.",
    buckets=(0.5, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 300),
    registry=None,
)
_events_waiting = Gauge(
    "gameserver_events_waiting_seconds",
    "For how long the active controller has been trying to write what it knows; 0 while nothing waits.",
    registry=None,
)
_event_log_events = Gauge("gameserver_event_log_events", "Events in the log.", registry=None)
_event_log_bytes = Gauge("gameserver_event_log_bytes", "Bytes in the log of events.", registry=None)
_events_missed = Gauge(
    "gameserver_event_changes_dropped",
    "Changes of servers' objects that the active controller had no room for; their events may be missing.",
    registry=None,
)


def show_events(waiting: Callable[[], float], dropped: Callable[[], float]) -> None:
    """Add the metrics of the log of events, which only the active controller has.

    Args:
        waiting: For how many seconds something has waited to be written.
        dropped: How many changes found no room.
    """
    _add(_events, _event_lag, _events_waiting, _event_log_events, _event_log_bytes, _events_missed)
    _events_waiting.set_function(waiting)
    _events_missed.set_function(dropped)


def count_event(type: str, lag: float) -> None:
    """Count an event that was written `lag` seconds after it happened."""
    _events.labels(type).inc()
    _event_lag.observe(lag)


def show_event_log(events: int, size: int) -> None:
    """Show how many events the log has, and how many bytes."""
    _event_log_events.set(events)
    _event_log_bytes.set(size)


def show_active(active: bool) -> None:
    """Show whether this pod is the active controller; the first call adds the metric."""
    _add(_active, _bulk_servers, _bulk_lag, _bulk_steps)
    _active.set(active)


def show_bulk(servers: Mapping[str, int], lag: float) -> None:
    """Show how many servers of operations are at what, and for how many seconds nothing has moved that could."""
    for outcome, count in servers.items():
        _bulk_servers.labels(outcome).set(count)
    _bulk_lag.set(lag)


def count_bulk_step(action: str, outcome: str) -> None:
    """Count one step of an operation that has ended."""
    _bulk_steps.labels(action, outcome).inc()


_schedule_runs = Counter(
    "gameserver_schedule_runs", "Runs of schedules that have ended, by outcome.", ["outcome"], registry=None
)
_schedule_lateness = Histogram(
    "gameserver_schedule_lateness_seconds",
    "How long after its due time each run began.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800),
    registry=None,
)
_schedules_running = Gauge("gameserver_schedule_running", "Runs of schedules that are under way.", registry=None)
_schedules_waiting = Gauge(
    "gameserver_schedule_waiting",
    "Schedules that are due, or have a step to do, and wait for a worker.",
    registry=None,
)
_schedules_late = Gauge(
    "gameserver_schedule_late_seconds", "For how long the one of them has waited that waits longest.", registry=None
)


def count_schedule_run(outcome: str) -> None:
    """Count one run of a schedule that has ended, or was passed over, with this outcome."""
    _schedule_runs.labels(outcome).inc()


def count_schedule_lateness(seconds: float) -> None:
    """Count one run of a schedule that began so long after it was due."""
    _schedule_lateness.observe(seconds)


def show_schedules(running: Callable[[], float], waiting: Callable[[], float], late: Callable[[], float]) -> None:
    """Show how many runs are under way and how many schedules wait, and since when (seconds).

    The first call adds the metrics of schedules.
    """
    _add(_schedule_runs, _schedule_lateness, _schedules_running, _schedules_waiting, _schedules_late)
    _schedules_running.set_function(running)
    _schedules_waiting.set_function(waiting)
    _schedules_late.set_function(late)


_held = Gauge("gameserver_held_games", "Games that were told to hold their world still.", registry=None)
_held_overdue = Gauge(
    "gameserver_held_games_overdue_seconds",
    "For how long the one of them should have been let go that has waited longest; 0 if none should.",
    registry=None,
)
_let_go = Counter(
    "gameserver_held_games_let_go",
    "Games that were to be let go because nobody else did, by outcome (success, gone, no-answer).",
    ["outcome"],
    registry=None,
)


def show_held_games(count: Callable[[], float], overdue: Callable[[], float]) -> None:
    """Show how many games hold still, and for how many seconds one of them should not. Adds the metrics."""
    _add(_held, _held_overdue, _let_go)
    _held.set_function(count)
    _held_overdue.set_function(overdue)


def count_let_go(outcome: str) -> None:
    """Count one try to let a game go: `success`, `gone` (it has ended, or was let go meanwhile) or `no-answer`."""
    _let_go.labels(outcome).inc()


def serve(port: int) -> None:
    """Serve /metrics on all addresses at `port`, in threads of its own."""
    start_http_server(port, registry=REGISTRY)


class BackupFigures(Protocol):
    """What is shown of the backups; see `controller.backup_figures.BackupFigures`."""

    @property
    def states(self) -> Mapping[str, int]: ...
    @property
    def stored_bytes(self) -> int: ...
    @property
    def overdue(self) -> Mapping[str, float]: ...
    @property
    def damaged(self) -> int: ...
    @property
    def postponed(self) -> int: ...
    @property
    def tasks(self) -> Mapping[str, int]: ...


class _Backups(Collector):
    """Shows how the backups are, at each scrape."""

    def __init__(self) -> None:
        self.figures: Callable[[], BackupFigures] | None = None

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        states, stored, overdue, damaged, postponed, jobs = families = self._families()
        if self.figures is None:
            return
        try:
            figures = self.figures()
        except Exception:
            log.warning("could not count the backups for /metrics", exc_info=True)
            return
        for state in ("queued", "running", "done", "failed", "cancelled", "deleting"):
            states.add_metric([state], figures.states.get(state, 0))
        for what, seconds in figures.overdue.items():
            overdue.add_metric([what], max(0.0, seconds))
        stored.add_metric([], figures.stored_bytes)
        damaged.add_metric([], figures.damaged)
        postponed.add_metric([], figures.postponed)
        for kind in ("forget", "prove", "clean", "erase", "init"):
            jobs.add_metric([kind], figures.tasks.get(kind, 0))
        yield from families

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, ...]:
        return (
            GaugeMetricFamily("gameserver_backups", "Backups by state.", labels=["state"]),
            GaugeMetricFamily(
                "gameserver_backups_stored_bytes",
                "What the backups take in the store, as it was measured after each repository's last prune.",
            ),
            GaugeMetricFamily(
                "gameserver_backups_overdue_seconds",
                "For how long the server has waited that has waited longest: for a good backup that a schedule should "
                "have made (backup), to have one proven (proof), to have its repository pruned and checked (prune).",
                labels=["what"],
            ),
            GaugeMetricFamily(
                "gameserver_backups_damaged", "Servers in whose backups the last check or proof has found damage."
            ),
            GaugeMetricFamily(
                "gameserver_backups_proofs_postponed", "Servers whose last proof had to be postponed for want of room."
            ),
            GaugeMetricFamily(
                "gameserver_backups_jobs",
                "Jobs that keep the backups, by what they do: forget, prune and check (forget), restore one on trial "
                "(prove), remove worlds of before from disks (clean), erase, or let a new key in (init).",
                labels=["kind"],
            ),
        )


_backups = _Backups()
_BACKUP_EVENTS = ("backup-done", "backup-failed", "backup-suspicious", "restored", "restore-failed", "proof-failed")
_backup_events = Counter(
    "gameserver_backup_events",
    "What has happened to backups, by the type of the event.",
    ["type"],
    registry=None,
)


def show_backups(figures: Callable[[], BackupFigures]) -> None:
    """Add the metrics of the backups, which only the active controller has."""
    _backups.figures = figures
    _add(_backups, _backup_events)
    # The first of a type must be seen to add something.
    for type_ in _BACKUP_EVENTS:
        _backup_events.labels(type_)


def count_backup_event(type: str) -> None:
    """Count something that has happened to a backup, by the type of its event."""
    _backup_events.labels(type).inc()
