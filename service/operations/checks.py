"""What create and change ask of a request alike, before they write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.errors import DiskCannotGrow, DiskCannotShrink, InvalidRequest
from service.games.catalogue import Game
from service.operations.context import Context


def known_game(games: Mapping[str, Game], name: str) -> Game:
    """The game of that name; raises InvalidRequest naming the field."""
    if name not in games:
        raise InvalidRequest(errors={"game": [f"is unknown; expected one of {', '.join(games)}"]})
    return games[name]


def check_options(game: Game, options: Mapping[str, Any]) -> None:
    """Raises InvalidRequest naming each option that does not fit the game."""
    if wrong := game.errors(options):
        raise InvalidRequest(f"The options are not valid for {game.title}.", errors=wrong)


def check_growth(context: Context, claim: Mapping[str, Any] | None, now_gb: int, wanted_gb: int) -> None:
    """Raises DiskCannotShrink or DiskCannotGrow where the disk cannot take its new size."""
    if wanted_gb < now_gb:
        raise DiskCannotShrink(errors={"disk_gb": [f"must not be smaller than {now_gb}"]})
    if wanted_gb == now_gb or claim is None:
        return
    if not context.cluster.disk_class_expandable(dict(claim)):
        raise DiskCannotGrow(errors={"disk_gb": [f"must be {now_gb}: its storage class does not allow growth"]})
    # Until then Kubernetes takes no change of a claim:
    # https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims
    if claim.get("status", {}).get("phase") != "Bound":
        what = f"must be {now_gb} until the server's first start, which creates the disk"
        raise DiskCannotGrow(errors={"disk_gb": [what]})
