"""What every operation works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.games.catalogue import Game
from service.operations.interfaces import Accounts, Cluster, Releases, Tokens
from service.settings import Settings


@dataclass(frozen=True)
class Context:
    """The collaborators that `create_app` was given, and what it read at the start."""

    settings: Settings
    cluster: Cluster
    releases: Releases
    accounts: Accounts
    tokens: Tokens
    games: Mapping[str, Game]
    operator_values: Mapping[str, Any]


def erase_disk(context: Context, id: int, *, unless_used: bool = False) -> None:
    """Begin to erase the server's disk, under the Lease that this thread holds; maybe only one that holds nothing."""
    context.cluster.erase_disk(id, lambda: context.releases.confirm(id), unless_used=unless_used)
