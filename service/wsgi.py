"""The application with its real collaborators, for a WSGI server: `service.wsgi:app`.

Importing this module creates threads and sockets, so import it only after a fork; gunicorn imports it in its worker.
"""

from __future__ import annotations

import logging
import os
import sys

from flask import Flask

from service.app import create_app
from service.cluster.reader import ClusterReader
from service.errors import StartupError
from service.files.accounts import SecretAccounts
from service.helm.releases import HelmReleases
from service.operations.census import count_disks, count_servers
from service.settings import Settings
from service.telemetry import logs, metrics
from service.tokenstore.watched import WatchedTokens

# If a worker exits with this status, gunicorn stops instead of starting one worker after another.
_CANNOT_BOOT = 3


def build() -> Flask:
    """Create the application and its collaborators, and serve the metrics; raises StartupError."""
    settings = Settings.from_environment(os.environ)
    logs.configure(settings.log_level, settings.log_format)
    cluster = ClusterReader(settings)
    releases = HelmReleases(settings, helm_done=metrics.count_helm_operation, recovered=metrics.count_recovery)
    accounts = SecretAccounts(settings) if settings.sftp_namespace else None
    app = create_app(settings, cluster, releases, accounts, _tokens(settings))
    cluster.start()
    metrics.count_servers(lambda: count_servers(cluster))
    metrics.count_disks(lambda: count_disks(cluster))
    if settings.metrics_port:
        metrics.serve(settings.metrics_port)
    return app


def _tokens(settings: Settings) -> WatchedTokens | None:
    """The tokens in Kubernetes, or None if there is a file of tokens; raises StartupError if they are invalid."""
    if settings.tokens_file or not settings.tokens_secret:
        return None
    tokens = WatchedTokens(settings)
    tokens.start()
    return tokens


try:
    app = build()
except StartupError as error:
    logging.getLogger(__name__).critical("cannot start: %s", error)
    sys.exit(_CANNOT_BOOT)
