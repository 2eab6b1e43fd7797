"""The collaborators that every operation works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.backups.records import KIND as BACKUPS
from service.backups.records import BackupStore, BackupWatch
from service.console.turns import Turns
from service.events.reader import EventReader
from service.files.keptlogs import NoKeptLogs
from service.games.catalogue import Game
from service.logs.follow import FollowedLogs
from service.operations.interfaces import Accounts, Cluster, KeptLogs, RecordStores, Releases, Tokens, Webhooks
from service.operations.operation import OperationStore
from service.players.counts import PlayerCounts
from service.players.known import LastPlayers
from service.players.query import Query
from service.progress.follow import FollowedStarts
from service.servers.chartvalues import ChartValues
from service.settings import Settings
from service.web.followers import Followers


@dataclass(frozen=True)
class Context:
    """The collaborators of `create_app`, and the files that it read at startup.

    `games` are the games by name. `operator_values` are the chart values from the operator's file, and `chart` checks
    values; the default is the bundled chart. `records(kind)` is the store of that kind of record, and `operations` are
    those that take longer than a call. `events` is the log of events; None without records. `webhooks` is None if there
    is nowhere to keep them. `backups` are the records of backups, and `backup_watch` the same in memory, None without
    records. `counts` asks games for their players, and `players` is who plays, as last known. `turns` are those of
    commands for the games. `followers` are the clients with long answers, those of `logs` and of `starts`. `kept_logs`
    are the last lines of logs that have ended.
    """

    settings: Settings
    cluster: Cluster
    releases: Releases
    accounts: Accounts
    tokens: Tokens
    games: Mapping[str, Game]
    operator_values: Mapping[str, Any]
    records: RecordStores
    events: EventReader | None
    webhooks: Webhooks | None
    chart: ChartValues = field(default_factory=lambda: ChartValues(Settings.chart_path))
    kept_logs: KeptLogs = field(default_factory=NoKeptLogs)
    backup_watch: BackupWatch | None = None
    turns: Turns = field(default_factory=Turns)
    operations: OperationStore = field(init=False)
    counts: PlayerCounts = field(init=False)
    players: LastPlayers = field(init=False)
    followers: Followers = field(default_factory=Followers)
    logs: FollowedLogs = field(init=False)
    starts: FollowedStarts = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", OperationStore(self.records))
        object.__setattr__(self, "counts", PlayerCounts(self.cluster.known, self._query))
        object.__setattr__(self, "players", LastPlayers(self.counts))
        object.__setattr__(self, "logs", FollowedLogs(self.cluster, self.followers))
        object.__setattr__(self, "starts", FollowedStarts(self.cluster, self.followers))

    def _query(self, game: str) -> Query | None:
        return self.games[game].query if game in self.games else None

    @property
    def backups(self) -> BackupStore:
        """What is kept about backups."""
        return BackupStore(self.records(BACKUPS))


def erase_disk(context: Context, id: int, *, unless_used: bool = False) -> None:
    """Start to erase the server's disk. The calling thread must hold the server's Lease.

    With `unless_used`, only a disk that never had a volume is erased.
    """
    context.cluster.erase_disk(id, lambda: context.releases.confirm(id), unless_used=unless_used)
