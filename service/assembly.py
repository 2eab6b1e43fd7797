"""Reads the files that an API process or the controller works with, and puts its collaborators together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from service.backups.records import KIND as BACKUPS
from service.backups.records import BackupStore
from service.configfile import unknown
from service.errors import OperationFailed, StartupError
from service.events.reader import EventReader
from service.events.segments import KIND as EVENTS
from service.files.accounts import NoFileAccess
from service.files.keptlogs import NoKeptLogs
from service.games import catalogue, operator_values
from service.helm.releases import HelmReleases
from service.operations.context import Context
from service.operations.interfaces import Accounts, Cluster, KeptLogs, RecordStores, Releases, Tokens, Webhooks
from service.servers.chartvalues import ChartValues
from service.settings import Settings
from service.telemetry import metrics
from service.tokens import TokensFile


def build_releases(settings: Settings) -> HelmReleases:
    """The releases of a process, which count into its metrics. Call it after a fork; raises StartupError."""
    return HelmReleases(
        settings,
        helm_done=metrics.count_helm_operation,
        recovered=metrics.count_recovery,
        daemon_runs=metrics.show_helm_daemon,
    )


def build_context(
    settings: Settings,
    cluster: Cluster,
    releases: Releases,
    accounts: Accounts | None = None,
    tokens: Tokens | None = None,
    records: RecordStores | None = None,
    webhooks: Webhooks | None = None,
    kept_logs: KeptLogs | None = None,
) -> Context:
    """The context of all operations.

    Args:
        settings: The settings of this process.
        cluster: Reads Kubernetes.
        releases: Writes through Helm.
        accounts: The SFTP accounts; None if file access is not installed.
        tokens: The tokens; None to read them from `settings.tokens_file`.
        records: The store of each kind of record; None if there is none.
        webhooks: Where webhooks are kept; None if there is nowhere to keep them.
        kept_logs: The last lines of games that have ended; None if nobody keeps any.

    Raises:
        StartupError: A file or a setting is invalid; the message names the file and line, or the variable.
    """
    folders = [catalogue.BUILT_IN, *([settings.games_dir] if settings.games_dir else [])]
    chart = ChartValues(settings.chart_path)
    games = catalogue.load(*folders, chart=chart)
    _check_settings(settings, games, chart)
    return Context(
        settings=settings,
        cluster=cluster,
        releases=releases,
        games=games,
        operator_values=operator_values.load(settings.server_values_file, games, chart),
        chart=chart,
        accounts=accounts if accounts and settings.sftp_namespace else NoFileAccess(),
        tokens=tokens or _tokens_file(settings),
        records=records or _no_records,
        events=None if records is None else EventReader(records(EVENTS)),
        webhooks=webhooks,
        kept_logs=kept_logs if kept_logs and settings.sftp_namespace else NoKeptLogs(),
        backup_watch=None if records is None else BackupStore(records(BACKUPS)).watch(),
    )


def _no_records(kind: str) -> NoReturn:
    raise OperationFailed("This API has nowhere to keep records.")


def _tokens_file(settings: Settings) -> TokensFile:
    if settings.tokens_file is None:
        raise StartupError("TOKENS_FILE: set it or TOKENS_SECRET; without either, nobody could call the API")
    return TokensFile(settings.tokens_file)


def _check_settings(settings: Settings, games: Mapping[str, catalogue.Game], chart: ChartValues) -> None:
    """Raises StartupError for a setting that does not match the games or the chart."""
    for name in sorted(settings.accepted_eulas):
        if name not in games:
            raise StartupError(f"ACCEPTED_EULAS: the game {name} {unknown(name, games)}")
    for name, game in games.items():
        if game.console and game.console.kind == "stdin" and not settings.console_stdin:
            raise StartupError(
                f"CONSOLE_STDIN: the game {name} takes commands on its standard input (console.kind is stdin). Set "
                "console.stdin in the values of the API's chart, which grants the right to write to it"
            )
    for variable, size in (
        ("MAX_RAM_GB", {"ramGb": settings.max_ram_gb}),
        ("MAX_DISK_GB", {"diskGb": settings.max_disk_gb}),
    ):
        for mistake in chart.refused(size):
            raise StartupError(f"{variable}: {mistake.message}")
