"""How commands reach a game, and those that hold its world still. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

CHART_VALUES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"rcon": {}, "econ": {"econ": {"enabled": True}}, "stdin": {"stdin": True}}
)
"""The kinds of console, and what each needs of the chart.

- `rcon`: Source RCON over TCP, with the password in the server's Secret. The chart has it unless it is turned off.
- `econ`: the external console of Teeworlds' kind, over TCP, with a password in a Secret of its own.
- `stdin`: the game's standard input.
"""
LONGEST_COMMAND = 1000
"""Bytes of a command. Minecraft takes a packet of at most 1,460 bytes."""
COMMAND_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"
"""What a schema can say of a command; `mistake_in` says the rest."""
LONGEST_HOLD = 120
"""Seconds that a game may be given to hold its world still."""


def mistake_in(command: str) -> str | None:
    """What is wrong with a command; None if nothing is."""
    if not command.strip():
        return "must not be empty"
    if any(unicodedata.category(each) in ("Cc", "Cs") for each in command):
        return "must be one line without control characters"
    if len(command.encode()) > LONGEST_COMMAND:
        return f"must have at most {LONGEST_COMMAND} bytes"
    return None


@dataclass(frozen=True)
class Console:
    """How commands reach a game.

    Attributes:
        kind: One of CHART_VALUES.
        port: The name of the port of an `rcon`; the others have their own.
    """

    kind: str
    port: str = "rcon"

    @property
    def chart_values(self) -> Mapping[str, Any]:
        """The values of the chart that it needs."""
        return CHART_VALUES[self.kind]


@dataclass(frozen=True)
class Command:
    """One line for the console, and what its answer must contain: one of these texts; any answer will do without."""

    command: str
    expect: tuple[str, ...] = ()


@dataclass(frozen=True)
class Save:
    """How a game's world is held still.

    Attributes:
        hold: The commands after which everything is on the disk and the game writes nothing more, in order.
        release: The commands that let it go on. To send them twice, or without `hold`, must do no harm.
        check: A command that tells, while the game should hold still, whether it did all the time; None if there is
            none. It may make it hold still again, because `release` follows.
        seconds: How long `hold` may take in all; all but its last command only a quarter of it.
    """

    hold: tuple[Command, ...]
    release: tuple[Command, ...]
    check: Command | None = None
    seconds: float = 30
