"""Change a server's memory, disk size, options, idle stop and how many backups stay."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

from service.operations.checks import (
    check_growth,
    check_options,
    checked_values,
    keep_of,
    known_game,
    require_disk_stays,
    require_not_suspended,
    require_same_server,
)
from service.operations.context import Context
from service.operations.visibility import Target
from service.servers import values
from service.servers.spec import ServerSpec, same
from service.tokens import Token


def change(context: Context, caller: Token, target: Target, request: Mapping[str, Any]) -> bool:
    """Change the server's sizes, options, idle stop and how many backups stay.

    Args:
        context: The operation's collaborators.
        caller: The caller.
        target: The server.
        request: A loaded schemas.UpdateServer; what it does not name stays as it is.

    Returns:
        Whether a running game restarts to apply the change.

    Raises:
        DiskCannotShrink, DiskCannotGrow: The disk cannot have its new size.
        InvalidRequest: The options are not valid for the game.
        Suspended: The server is suspended.
        ServerNotFound: The server is gone; there may be another one with its id.
        DiskBeingDeleted: The change would restart the game, and its disk would not outlive that.
    """
    restarting = False

    def new_values(current: values.Values) -> values.Values:
        nonlocal restarting
        before = require_same_server(target, current)
        require_not_suspended(caller, before.suspended)
        after = _change_spec(before, request)
        check_growth(context, target.objects.claim, before.disk_gb, after.disk_gb)
        old, without, whole = _render(context, target.id, before, after, request.get("options", {}).keys())
        new = values.completed(values.changed(current, old, whole), without, whole)
        restarting = values.restarts(current, new)
        if restarting:
            require_disk_stays(target.objects)
        return values.reachable(new, context.settings.external_host) if new != current else current

    return context.releases.change(target.id, new_values) and restarting


def _change_spec(before: ServerSpec, request: Mapping[str, Any]) -> ServerSpec:
    options = {**before.options, **request.get("options", {})}
    return replace(
        before,
        ram_gb=request.get("ram_gb", before.ram_gb),
        disk_gb=request.get("disk_gb", before.disk_gb),
        options={name: value for name, value in options.items() if value is not None},
        idle_stop_minutes=request.get("idle_stop_minutes", before.idle_stop_minutes) or 0,
        backup_keep=keep_of(request["backup_keep"]) if "backup_keep" in request else before.backup_keep,
    )


def _render(
    context: Context, id: int, before: ServerSpec, after: ServerSpec, requested: Set[str]
) -> tuple[values.Values, values.Values, values.Values]:
    """The values that a create would make today: of the old spec, of the new one without `requested`, of the new one.

    The first and the last differ in what the request changes. The last two differ in everything that belongs to the
    requested options. An earlier template may have left out a part of that, such as how a list gets into its file.
    """
    game = known_game(context.games, before.game)
    if not same(before.options, after.options):
        check_options(game, after.options)
    others = {name: value for name, value in after.options.items() if name not in requested}
    # A game may require an option; then its template cannot be rendered without it.
    without = after if game.errors(others) else replace(after, options=others)
    removed = before.options.keys() - after.options.keys()

    def render(spec: ServerSpec, removed: Set[str] = frozenset()) -> values.Values:
        return values.values_of(id, spec, game.render(id, spec, taken_back=removed), context.operator_values)

    def render_new(options: Mapping[str, Any]) -> values.Values:
        return render(replace(after, options=options), removed)

    old, options = render(before), after.options
    changes = not same(before.options, options)
    new = checked_values(context, game, options, render_new, old) if changes else render_new(options)
    return old, render(without), new
