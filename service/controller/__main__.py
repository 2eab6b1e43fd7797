"""The controller's process: `python -m service.controller`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial

from service.assembly import build_context, build_releases
from service.backups.runner import JobRunner
from service.backups.snapshots import VolumeSnapshots
from service.cluster.reader import ClusterReader
from service.controller.backup import BackUp, DeleteBackup
from service.controller.bulk import Bulk
from service.controller.clone import Clone
from service.controller.deliver import Deliver
from service.controller.events import Events
from service.controller.idle import IdleStop
from service.controller.keep import Keep
from service.controller.leader import Leader, Term
from service.controller.owed import Owed
from service.controller.part import Part
from service.controller.restore import Restore, UndoRestore
from service.controller.schedules import Schedules
from service.controller.worlds import Machine, Worlds
from service.errors import StartupError
from service.files.accounts import SecretAccounts
from service.kube.client import Kube
from service.kube.leases import Leases
from service.kube.watch import Watch
from service.operations.context import Context
from service.records.store import RecordStore
from service.settings import Settings
from service.telemetry import logs, metrics
from service.tokenstore.watched import watched_tokens
from service.webhooks.deliveries import KIND as DELIVERIES
from service.webhooks.store import SecretWebhooks, secret_webhooks

log = logging.getLogger("service.controller")


def machines_of(context: Context, kube: Kube) -> list[Machine]:
    """How each operation on a server's world is carried out."""
    jobs, snapshots = _jobs(context.settings, kube), _snapshots(context.settings, kube)
    return [
        BackUp(context, jobs, snapshots),
        DeleteBackup(context, snapshots),
        Restore(context, jobs, snapshots),
        UndoRestore(context, jobs, snapshots),
        Clone(context, jobs, snapshots),
    ]


def watches_of(settings: Settings, kube: Kube, wake: Callable[[], None]) -> list[Watch]:
    """The watches of the Jobs that operations on worlds wait for."""
    namespaces = filter(None, (settings.servers_namespace, settings.backup_namespace))
    return [_jobs(settings, kube).watch(namespace, wake) for namespace in namespaces]


def _jobs(settings: Settings, kube: Kube) -> JobRunner:
    return JobRunner(kube, settings.servers_namespace, settings.backup_namespace)


def _snapshots(settings: Settings, kube: Kube) -> VolumeSnapshots:
    return VolumeSnapshots(kube, settings.servers_namespace, settings.backup_snapshot_class)


def parts_of(context: Context, kube: Kube, webhooks: SecretWebhooks | None) -> list[Part]:
    """All parts, in the order in which they start."""
    events, idle = Events(context.cluster, context.records), IdleStop(context)
    players = idle.counts.if_known
    parts: list[Part] = [
        events,
        Bulk(context, lambda objects: players(objects) == 0),
        Schedules(context, events.add, players),
        idle,
        Worlds(context, machines_of(context, kube), partial(watches_of, context.settings, kube)),
        Owed(context),
        Keep(context, _jobs(context.settings, kube), _snapshots(context.settings, kube), events.add),
    ]
    if webhooks is not None and context.events is not None:
        parts.append(Deliver(context.settings, kube, webhooks, context.records(DELIVERIES), context.events))
    return parts


def run(settings: Settings, stop: threading.Event) -> None:
    """Run the controller until `stop` is set; raises StartupError."""
    cluster = ClusterReader(settings)
    releases = build_releases(settings)
    accounts = SecretAccounts(settings) if settings.sftp_namespace else None
    kube = Kube(connections=16)
    records = partial(RecordStore, kube, settings.servers_namespace)
    tokens, webhooks = watched_tokens(settings), secret_webhooks(settings, kube)
    context = build_context(settings, cluster, releases, accounts, tokens, records, webhooks=webhooks)
    parts = parts_of(context, kube, webhooks)
    for part in parts:
        part.start()
    cluster.start()
    metrics.show_active(False)
    if settings.metrics_port:
        metrics.serve(settings.metrics_port)

    def lead(term: Term) -> None:
        metrics.show_active(True)
        for part in parts:
            part.lead(term)

    Leader(Leases(kube, settings.servers_namespace, settings.pod_name), stop, cluster.sees_all).run(lead)


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit status."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = Settings.from_environment(os.environ)
        logs.configure(settings.log_level, settings.log_format)
        run(settings, stop)
    except StartupError as error:
        logs.configure("info")
        log.critical("cannot start: %s", error)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
