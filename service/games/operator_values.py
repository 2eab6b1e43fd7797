"""Loads the operator's own values for servers: `all`, and `games.<name>` for each game.

They are merged with each game's values as a create would do it, so that mistakes are found before the first create.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from service.configfile import Keys, dotted, has, line_of, text_of, unknown, yaml_of
from service.errors import StartupError
from service.games.catalogue import Game, missing_port
from service.servers.chartvalues import ChartValues, Mistake
from service.servers.values import deep_merge

# Values with their keys in the operator's file, () for a game's own. The first layer overrides the others.
Layers = list[tuple[tuple[str, ...], Mapping[str, Any]]]


def load(path: Path | None, games: Mapping[str, Game], chart: ChartValues) -> Mapping[str, Any]:
    """Load the values from a file; {} without a file. Raises StartupError, which names all mistakes in the file."""
    if path is None:
        return {}
    text = text_of(path)
    values = _or_empty(yaml_of(path, text))
    if not isinstance(values, dict) or values.keys() - {"all", "games"}:
        raise StartupError(f"{path}:1: must be a mapping with `all` and `games` and nothing else")
    for key in ("all", "games"):
        if not isinstance(_or_empty(values.get(key)), dict):
            raise StartupError(f"{path}:1: `{key}` must be a mapping")
    errors: dict[Keys, str] = {}
    for keys, message in _errors(values, games, chart):
        errors.setdefault(keys, message)
    if errors:
        lines = sorted((line_of(text, keys), f"{dotted(keys)} {message}") for keys, message in errors.items())
        raise StartupError("; ".join(f"{path}:{line}: {message}" for line, message in lines))
    return values


def _or_empty(value: Any) -> Any:
    """The value; {} for none, as helm reads it."""
    return {} if value is None else value


def _errors(values: Mapping[str, Any], games: Mapping[str, Game], chart: ChartValues) -> Iterator[tuple[Keys, str]]:
    """Yield all mistakes with their keys in the file: first those in the file alone, then those with each game."""
    for_all = ("all",), values.get("all") or {}
    by_game = {}
    for name, game_values in (values.get("games") or {}).items():
        if name not in games:
            yield ("games", name), f"is not a game: it {unknown(name, games)}"
        elif not isinstance(_or_empty(game_values), dict):
            yield ("games", name), "must be a mapping"
        else:
            by_game[name] = game_values or {}
    for layer in (for_all, *((("games", name), game_values) for name, game_values in by_game.items())):
        yield from _located(chart.mistakes(layer[1]), [layer])
    for name, game in games.items():
        for rendered in game.shapes:
            layers: Layers = [(("games", name), by_game.get(name, {})), ((), rendered), for_all]
            merged = deep_merge(*(layer_values for _, layer_values in reversed(layers)))
            mistakes = chart.mistakes(merged) or chart.clashes(merged) or _unasked(game, merged)
            yield from _located(mistakes, layers, f" (with the game {name})")


def _unasked(game: Game, values: Mapping[str, Any]) -> list[Mistake]:
    """A game that its `game.yaml` says how to ask for its players must keep the port for it."""
    missing = missing_port(game.query, values["ports"]) if game.query else ""
    message = f"replaces the port at which the game is asked for its players: {missing}"
    return [Mistake((("ports",),), message)] if missing else []


def _located(mistakes: list[Mistake], layers: Layers, context: str = "") -> Iterator[tuple[Keys, str]]:
    for mistake in mistakes:
        yield _keys_in_file(mistake, layers), f"{mistake.message}{context}"


def _keys_in_file(mistake: Mistake, layers: Layers) -> Keys:
    """The mistake's keys in the operator's file. The game's own values alone are known to be valid."""
    in_file = [(prefix, values) for prefix, values in layers if prefix]
    candidates = [(*prefix, *keys) for prefix, values in in_file for keys in mistake.paths if has(values, keys)]
    return candidates[0] if candidates else mistake.paths[0]
