"""The operator's own values for servers: `all`, and by game `games.<name>`.

They are checked with each game, as a create would merge them, so that a slip is found before any server is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from service.configfile import Keys, dotted, has, line_of, text_of, unknown, yaml_of
from service.errors import StartupError
from service.games.catalogue import Game
from service.servers.chartvalues import ChartValues, Mistake
from service.servers.values import deep_merge

# Values with the keys under which they stand in the operator's file, none for a game's own; the first go before.
Layers = list[tuple[tuple[str, ...], Mapping[str, Any]]]


def load(path: Path | None, games: Mapping[str, Game], chart: ChartValues) -> Mapping[str, Any]:
    """The values in the file, or none without a file; raises StartupError naming all that is wrong in it."""
    if path is None:
        return {}
    text = text_of(path)
    found = yaml_of(path, text) or {}
    if not isinstance(found, dict) or found.keys() - {"all", "games"}:
        raise StartupError(f"{path}:1: must be a mapping with `all` and `games` and nothing else")
    for key in ("all", "games"):
        if not isinstance(found.get(key) or {}, dict):
            raise StartupError(f"{path}:1: `{key}` must be a mapping")
    complaints: dict[Keys, str] = {}
    for keys, what in _complaints(found, games, chart):
        complaints.setdefault(keys, what)
    if complaints:
        lines = sorted((line_of(text, keys), f"{dotted(keys)} {what}") for keys, what in complaints.items())
        raise StartupError("; ".join(f"{path}:{line}: {what}" for line, what in lines))
    return found


def _complaints(found: Mapping[str, Any], games: Mapping[str, Game], chart: ChartValues) -> Iterator[tuple[Keys, str]]:
    """What is wrong, and where in the file. What is wrong by itself comes before what is so with a game only."""
    everywhere = ("all",), found.get("all") or {}
    own = {}
    for name, values in (found.get("games") or {}).items():
        if name not in games:
            yield ("games", name), f"is no game: it {unknown(name, games)}"
        elif not isinstance(values or {}, dict):
            yield ("games", name), "must be a mapping"
        else:
            own[name] = values or {}
    for layer in (everywhere, *((("games", name), values) for name, values in own.items())):
        yield from _wrong(chart.mistakes(layer[1]), [layer])
    for name, game in games.items():
        for rendered in game.shapes:
            layers: Layers = [(("games", name), own.get(name, {})), ((), rendered), everywhere]
            made = deep_merge(*(values for _, values in reversed(layers)))
            mistakes = chart.mistakes(made) or chart.clashes(made)
            yield from _wrong(mistakes, layers, f" (with the game {name})")


def _wrong(mistakes: list[Mistake], layers: Layers, having: str = "") -> Iterator[tuple[Keys, str]]:
    for mistake in mistakes:
        yield _blamed(mistake, layers), f"{mistake.message}{having}"


def _blamed(mistake: Mistake, layers: Layers) -> Keys:
    """Where in the operator's file the mistake comes from. The game's own values were found in order by themselves."""
    there = [(*at, *keys) for at, values in layers if at for keys in mistake.paths if has(values, keys)]
    return there[0] if there else mistake.paths[0]
