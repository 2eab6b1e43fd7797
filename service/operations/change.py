"""Change: a server's sizes and options."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

from service.operations.checks import check_growth, check_options, known_game
from service.operations.context import Context
from service.operations.visibility import Target
from service.servers import values
from service.servers.spec import ServerSpec, same, spec_of_values


def change(context: Context, target: Target, request: Mapping[str, Any]) -> bool:
    """Change what the request names; gives whether a running game restarts to take it.

    `request` is a loaded schemas.UpdateServer. Raises one of the disk problems where the disk cannot take its new
    size, and InvalidRequest where the options do not fit the game.
    """
    restarting = False

    def changed(current: values.Values) -> values.Values:
        nonlocal restarting
        before = spec_of_values(current)
        after = _updated(before, request)
        check_growth(context, target.objects.claim, before.disk_gb, after.disk_gb)
        old, without, wanted = _rendered(context, target.id, before, after, request.get("options", {}).keys())
        new = values.completed(values.changed(current, old, wanted), without, wanted)
        restarting = values.restarts(current, new)
        return values.reachable(new, context.settings.external_host) if new != current else current

    return context.releases.change(target.id, changed) and restarting


def _updated(before: ServerSpec, request: Mapping[str, Any]) -> ServerSpec:
    options = {**before.options, **request.get("options", {})}
    return replace(
        before,
        ram_gb=request.get("ram_gb", before.ram_gb),
        disk_gb=request.get("disk_gb", before.disk_gb),
        options={name: value for name, value in options.items() if value is not None},
    )


def _rendered(
    context: Context, id: int, before: ServerSpec, after: ServerSpec, asked: Set[str]
) -> tuple[values.Values, values.Values, values.Values]:
    """The values of the spec before, of that after without the options asked for, and after.

    They are as a create would make them today. The first and the last differ in what the change is about; the last
    two in all that belongs to an option, of which an earlier template may have left out a part (how a list goes into
    its file).
    """
    game = known_game(context.games, before.game)
    if not same(before.options, after.options):
        check_options(game, after.options)
    others = {name: value for name, value in after.options.items() if name not in asked}
    # A game may ask for some option: its template is shown nothing without it.
    without = after if game.errors(others) else replace(after, options=others)
    taken_back = before.options.keys() - after.options.keys()

    def made(spec: ServerSpec, gone: Set[str] = frozenset()) -> values.Values:
        return values.values_of(id, spec, game.render(id, spec, taken_back=gone), context.operator_values)

    return made(before), made(without), made(after, taken_back)
