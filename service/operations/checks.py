"""Checks that several verbs share; they run them before they write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from service.configfile import dotted
from service.errors import (
    DiskBeingDeleted,
    DiskCannotGrow,
    DiskCannotShrink,
    InvalidRequest,
    OperationInProgress,
    ServerNotFound,
    Suspended,
)
from service.games.catalogue import Game
from service.operations.context import Context
from service.operations.visibility import Target
from service.servers.accessors import is_bound
from service.servers.disks import ends_with_pod, growth_of
from service.servers.objects import Objects
from service.servers.spec import ServerSpec, Suspension, own_uid, spec_of_values, uid_of_values
from service.servers.values import Values
from service.settings import Keep
from service.tokens import Token

RESTORE_SECONDS = 10
"""When to try again what a restore does not allow."""


def require_same_server(target: Target, current: Mapping[str, Any]) -> ServerSpec:
    """The spec in the release's current values; raises ServerNotFound if they are those of a later server with the id.

    Every verb that changes the values asks this under the server's Lease: since the call arrived, the id may have been
    given to another customer. Where one of the two has no uid, because the StatefulSet is missing or an operator has
    created the server by hand, it is the same server if it has the same customer.
    """
    spec = spec_of_values(current)
    before, now = own_uid(target.objects), uid_of_values(current)
    if before is None or now is None:
        is_same = target.spec is not None and target.spec.customer == spec.customer
    else:
        is_same = before == now
    if not is_same:
        raise ServerNotFound
    return spec


def require_not_suspended(caller: Token, suspension: Suspension | None) -> None:
    """Raises Suspended, with the reason, if the server is suspended and the caller may not suspend servers itself.

    Every verb asks this, except `stop`. A verb that writes through Helm asks under the server's Lease, about the values
    that it changes: then no start can come after a suspension.
    """
    if suspension is not None and "server:suspend" not in caller.actions:
        reason = f": {suspension.reason}" if suspension.reason else "."
        raise Suspended(f"The server is suspended{reason}")


def require_not_restoring(spec: ServerSpec) -> None:
    """Raises OperationInProgress, which names the operation, while the server's world is being restored.

    Every verb asks this that would start the game; it asks under the server's Lease, about the values that it changes.
    """
    if spec.restoring:
        raise OperationInProgress(
            f"The operation {spec.restoring} is restoring the server's world. Try again when it has ended.",
            retry_after=RESTORE_SECONDS,
        )


def require_disk_stays(objects: Objects) -> None:
    """Raises DiskBeingDeleted if the end of the server's pod would be the end of its disk.

    Every verb asks this that would end a running game, except those that say that the server is to go, or is nobody's:
    delete and suspend.
    """
    if ends_with_pod(objects.claim, objects.pod):
        raise DiskBeingDeleted


def known_game(games: Mapping[str, Game], name: str) -> Game:
    """The game with this name; raises InvalidRequest if there is none."""
    if name not in games:
        raise InvalidRequest(errors={"game": [f"is unknown; expected one of {', '.join(games)}"]})
    return games[name]


def keep_of(numbers: Mapping[str, int] | None) -> Keep | None:
    """How many backups stay, as a request says it; None for the operator's default."""
    return None if numbers is None else Keep(**numbers)


def check_options(game: Game, options: Mapping[str, Any]) -> None:
    """Raises InvalidRequest, which names each option that is not valid for the game."""
    if messages := game.errors(options):
        raise InvalidRequest(f"The options are not valid for {game.title}.", errors=messages)


def checked_values(
    context: Context,
    game: Game,
    options: Mapping[str, Any],
    render: Callable[[Mapping[str, Any]], Values],
    before: Values | None = None,
) -> Values:
    """The server's values. Raises InvalidRequest, which names the option, if one makes values that the chart refuses.

    The schema of a game cannot say everything, such as that the port of an option must not be one of the game's.

    Args:
        context: The operation's collaborators.
        game: The server's game.
        options: All options of the server; `check_options` accepts them.
        render: Makes the server's values from options.
        before: The server's values until now, whose mistakes it may keep.
    """
    values = render(options)
    mistakes = _mistakes(context, values)
    if mistakes and before is not None:
        accepted = _mistakes(context, before)
        mistakes = {key: text for key, text in mistakes.items() if key not in accepted}
    if not mistakes:
        return values
    left_without = {}
    for name in options:
        others = {other: value for other, value in options.items() if other != name}
        # Without an option that the game requires, nothing can be rendered.
        if not game.errors(others):
            left_without[name] = _mistakes(context, render(others))
    errors: dict[str, list[str]] = {}
    for key, text in mistakes.items():
        causes = [name for name, left in left_without.items() if key not in left]
        for name in causes or options.keys() - left_without.keys():
            errors.setdefault(f"options.{name}", []).append(text)
    if errors:
        raise InvalidRequest(f"The options are not valid for {game.title}.", errors=errors)
    return values


def _mistakes(context: Context, values: Mapping[str, Any]) -> dict[tuple[object, str], str]:
    """What the chart refuses in the values, as messages by where and what it is."""
    chart = context.chart
    found = chart.refused(values) or chart.clashes(values)
    return {
        (mistake.paths, mistake.message): f"makes {dotted(mistake.paths[0])}, which {mistake.message}"
        for mistake in found
    }


def check_growth(context: Context, claim: Mapping[str, Any] | None, current_gb: int, new_gb: int) -> None:
    """Raises DiskCannotShrink or DiskCannotGrow if the disk cannot have the size `new_gb` (GiB)."""
    if new_gb < current_gb:
        smallest = _smallest_gb(claim, current_gb)
        if new_gb < smallest:
            raise DiskCannotShrink(errors={"disk_gb": [f"must not be smaller than {smallest}"]})
        return
    if new_gb == current_gb or claim is None:
        return
    if not context.cluster.disk_class_expandable(dict(claim)):
        raise DiskCannotGrow(errors={"disk_gb": [f"must be {current_gb}: its storage class does not allow growth"]})
    # Kubernetes does not accept a new size until the claim is bound:
    # https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims
    if not is_bound(claim):
        message = f"must be {current_gb} until the server's first start, which creates the disk"
        raise DiskCannotGrow(errors={"disk_gb": [message]})


def _smallest_gb(claim: Mapping[str, Any] | None, current_gb: int) -> int:
    """The smallest size that the disk may be changed to: after a growth that failed, the one that it still has."""
    growth = growth_of(claim)
    return current_gb if growth is None or growth.failure is None else min(current_gb, growth.from_gb)
