"""The application with its real collaborators, for a WSGI server: `service.wsgi:app`.

Importing this module creates threads and sockets, so import it only after a fork; gunicorn imports it in its worker.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import partial

from flask import Flask

from service.app import create_app
from service.assembly import build_context, build_releases
from service.cluster.reader import ClusterReader
from service.errors import StartupError
from service.files.accounts import SecretAccounts
from service.files.keptlogs import SecretKeptLogs
from service.kube.client import Kube
from service.operations.census import count_disks, count_servers
from service.records.store import RecordStore
from service.settings import Settings
from service.telemetry import logs, metrics
from service.tokenstore.watched import watched_tokens
from service.webhooks.store import secret_webhooks

# If a worker exits with this status, gunicorn stops instead of starting one worker after another.
_CANNOT_BOOT = 3


def build() -> Flask:
    """Create the application and its collaborators, and serve the metrics; raises StartupError."""
    settings = Settings.from_environment(os.environ)
    logs.configure(settings.log_level, settings.log_format)
    cluster = ClusterReader(settings)
    releases = build_releases(settings)
    accounts = SecretAccounts(settings) if settings.sftp_namespace else None
    kept_logs = SecretKeptLogs(settings) if settings.sftp_namespace else None
    kube = Kube(connections=8)
    records = partial(RecordStore, kube, settings.servers_namespace)
    tokens, webhooks = watched_tokens(settings), secret_webhooks(settings, kube)
    app = create_app(build_context(settings, cluster, releases, accounts, tokens, records, webhooks, kept_logs))
    cluster.start()
    if (events := app.extensions["gameserver"].events) is not None:
        events.start()
    metrics.count_servers(lambda: count_servers(cluster))
    metrics.count_disks(lambda: count_disks(cluster))
    if settings.metrics_port:
        metrics.serve(settings.metrics_port)
    return app


try:
    app = build()
except StartupError as error:
    logging.getLogger(__name__).critical("cannot start: %s", error)
    sys.exit(_CANNOT_BOOT)
