"""Hold a game's world still while a copy of its disk is made, and let the game go on.

That the game is owed its release is written to the StatefulSet before the first command. `release` pays it; if nobody
does, `controller/owed.py` does. A game that cannot be held still goes on, and its copy is as after a power cut.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from service.console.commands import Command, Console, Save
from service.console.connection import ConsoleError, GameConsole
from service.errors import ClusterUnavailable, OperationInProgress, Problem, ServerNotFound
from service.operations.console import Open, opened
from service.operations.context import Context
from service.servers.names import SAVE_OWED
from service.servers.objects import Objects
from service.servers.saveowed import SaveDebt, debt_of_text, running_game, save_debt
from service.servers.spec import server_uid, spec_of_objects
from service.servers.state import state_of

log = logging.getLogger(__name__)

LOGIN_SECONDS = 5.0
CHECK_SECONDS = 3.0
RELEASE_SECONDS = 5.0
"""How long one try to release a game may take. A game that is busy does what it was told later."""
BUSY_SHARE = 0.25
"""What share of its time a game may take for all but its last command."""
LASTS_SECONDS = 60.0
"""How long the copy of a disk may take, unless the caller says so."""

Consistency = Literal["game-saved", "crash-like"]


@dataclass(frozen=True)
class Held:
    """Whether a game holds still, or did all the time.

    Attributes:
        consistency: `game-saved`: all is on the disk, and the game writes nothing to its world. `crash-like`: the game
            goes on, so that a copy of its disk is as after a power cut.
        why: Why it is `crash-like`, as a sentence; None otherwise.
    """

    consistency: Consistency
    why: str | None = None


_told: dict[str, tuple[Open, Save]] = {}
"""The consoles of the games that this process has told to hold still, by the operation, until it lets them go."""


class _NotHeld(Exception):
    """The game cannot be held still; the message says why."""


def hold(context: Context, objects: Objects, operation: str, lasts: float = LASTS_SECONDS) -> Held:
    """Let the game save everything and then hold still, until `release` is called.

    The same operation may call this again after it was broken off. Whatever comes of it, `release` is to be called.

    Args:
        context: The operation's collaborators.
        objects: The server. Its pod is read again.
        operation: The id of the operation that needs it.
        lasts: For how many seconds at most the game holds still, once it does. Then it is let go, whoever does it.

    Returns:
        What the copy will be. This takes as long as the game's folder allows, and some seconds more if the game does
        not answer.

    Raises:
        OperationInProgress: The game holds still for another operation.
        ServerNotFound: The server was deleted meanwhile.
        ClusterUnavailable: Kubernetes does not answer. Then the game was not told anything.
    """
    current = _again(context, objects)
    try:
        save, debt, console = _prepared(context, current, operation, lasts)
    except _NotHeld as reason:
        return Held("crash-like", str(reason))
    _owe(context, current, debt)
    _told[operation] = console, save
    began = time.monotonic()
    try:
        with console(min(LOGIN_SECONDS, save.seconds)) as game:
            # A game that is slow already is not given the work of saving everything: Minecraft ends itself if that
            # takes a minute (https://github.com/itzg/docker-mc-backup/issues/220).
            _say_all(game, save.hold[:-1], began + save.seconds * BUSY_SHARE)
            _say_all(game, save.hold[-1:], began + save.seconds)
    except ConsoleError as error:
        log.info("the game cannot be held still: %s", error)
        _let_go(context, current, debt)
        return Held("crash-like", f"The game did not save: {error}.")
    return Held("game-saved")


def release(context: Context, objects: Objects, operation: str) -> Held:
    """Resume the game that is held for the operation. If it does not answer, `controller/owed.py` tries again.

    Args:
        context: The operation's collaborators.
        objects: The server. Its pod is read again.
        operation: The id of the operation.

    Returns:
        Whether the game held still until now: what has been copied since `hold` is `game-saved` only if both say so.

    Raises:
        ClusterUnavailable: Kubernetes does not answer. A game that this process has told to hold still is let go.
    """
    told = _told.pop(operation, None)
    try:
        current = _again(context, objects)
    except ServerNotFound:
        return Held("crash-like", "The server was deleted while its disk was copied.")
    except ClusterUnavailable:
        if told is not None:
            _let_go_at_once(*told)
        raise
    debt = save_debt(current)
    if debt is None or debt.operation != operation:
        return Held("crash-like", "The game was let go before the copy was made.")
    if not debt.is_owed_to(current):
        _forgive(context, current, debt)
        return Held("crash-like", "The game ended or started again while its disk was copied.")
    late, lasted = datetime.now(UTC) > debt.until, _lasted(context, current)
    _let_go(context, current, debt)
    if late:
        return Held("crash-like", "The copy took longer than the game may be held.")
    if not lasted:
        return Held("crash-like", "The game did not hold still until the copy was made.")
    return Held("game-saved")


def pay(context: Context, objects: Objects, debt: SaveDebt) -> bool:
    """Let the game go on that was told to hold still, if it still runs, and write that nothing is owed.

    The server's pod is read again.

    Returns:
        Whether the game was let go; it is not if it has ended, or if another has paid.

    Raises:
        ConsoleError: The game does not answer as it should.
        ClusterUnavailable: Kubernetes does not answer.
    """
    try:
        current = _again(context, objects)
    except ServerNotFound:
        return False
    if save_debt(current) != debt:
        return False
    owed = debt.is_owed_to(current)
    if owed:
        _release(context, current)
    _forgive(context, current, debt)
    return owed


# -- the game -----------------------------------------------------------------------------------------------


def _again(context: Context, objects: Objects) -> Objects:
    """The server as it is now. What an earlier read says could lead a password to another customer's pod."""
    current = context.cluster.server(objects.id)
    if server_uid(current) is None or server_uid(current) != server_uid(objects):
        raise ServerNotFound
    return current


def _known_save(context: Context, objects: Objects) -> tuple[Console, Save]:
    if (commands := _save_of(context, objects)) is None:
        # The operator has taken the commands away: nobody knows them.
        raise ConsoleError("this game has no command any more that lets it go")
    return commands


def _save_of(context: Context, objects: Objects) -> tuple[Console, Save] | None:
    spec = spec_of_objects(objects)
    game = context.games.get(spec.game) if spec else None
    if game is None or game.console is None or game.save is None:
        return None
    return game.console, game.save


def _prepared(context: Context, objects: Objects, operation: str, lasts: float) -> tuple[Save, SaveDebt, Open]:
    """What holding still takes: the commands, what will be owed, and the console. Raises _NotHeld."""
    if (commands := _save_of(context, objects)) is None:
        raise _NotHeld("This game has no command that makes it hold still.")
    running = running_game(objects)
    if running is None or state_of(objects).state != "running":
        raise _NotHeld("The game was not ready for players, so it could not be told to save.")
    console, save = commands
    until = datetime.now(UTC) + timedelta(seconds=save.seconds + lasts)
    try:
        return save, SaveDebt(operation, *running, until), opened(context, objects, console)
    except ConsoleError as error:
        raise _NotHeld(f"The game could not be told to save: {error}.") from error


def _say(game: GameConsole, command: Command, seconds: float) -> None:
    """Send the command; raises ConsoleError unless the answer is as expected."""
    answer = game.run(command.command, seconds, command.expect)
    if command.expect and not any(text in answer for text in command.expect):
        # What the game says is the customer's, and is not repeated.
        raise ConsoleError(f"it did not answer {command.command!r} as expected")


def _say_all(game: GameConsole, commands: Sequence[Command], deadline: float) -> None:
    for each in commands:
        _say(game, each, deadline - time.monotonic())


def _release(context: Context, objects: Objects) -> None:
    """Release the game; raises ConsoleError."""
    console, save = _known_save(context, objects)
    _send_release(opened(context, objects, console), save)


def _let_go_at_once(console: Open, save: Save) -> None:
    """Release a game without Kubernetes, which may be away for long. It stays owed: nobody can write that it is not."""
    try:
        _send_release(console, save)
    except (ConsoleError, ClusterUnavailable) as error:
        log.warning("the game could not be let go while Kubernetes is away: %s", error)


def _send_release(console: Open, save: Save) -> None:
    deadline = time.monotonic() + RELEASE_SECONDS
    with console(RELEASE_SECONDS) as game:
        _say_all(game, save.release, deadline)


def _lasted(context: Context, objects: Objects) -> bool:
    """Whether the game has held still until now, as far as it can say so."""
    try:
        console, save = _known_save(context, objects)
        if save.check is not None:
            with opened(context, objects, console)(CHECK_SECONDS) as game:
                _say(game, save.check, CHECK_SECONDS)
    except ConsoleError as error:
        log.info("whether the game held still is not known: %s", error)
        return False
    return True


# -- what is owed -------------------------------------------------------------------------------------------


def _owe(context: Context, objects: Objects, debt: SaveDebt) -> None:
    """Write what will be owed; raises OperationInProgress while the game holds still for another operation."""

    def change(text: str | None) -> str:
        other = debt_of_text(text)
        taken = other is not None and other.operation != debt.operation and other.is_owed_to(objects)
        if taken and other is not None and datetime.now(UTC) < other.until:
            raise OperationInProgress
        return debt.as_text()

    context.cluster.annotate(objects.id, _uid(objects), SAVE_OWED, change)


def _forgive(context: Context, objects: Objects, debt: SaveDebt) -> None:
    """Write that nothing is owed any more."""
    with suppress(ServerNotFound):
        context.cluster.annotate(
            objects.id, _uid(objects), SAVE_OWED, lambda text: None if debt_of_text(text) == debt else text
        )


def _let_go(context: Context, objects: Objects, debt: SaveDebt) -> None:
    """Release the game, and write that nothing is owed; or else, that it is owed at once."""
    try:
        _release(context, objects)
    except ConsoleError as error:
        log.warning("the game could not be let go yet: %s", error)
        _owe_at_once(context, objects, debt)
        return
    try:
        _forgive(context, objects, debt)
    except Problem as problem:
        # It is let go once more, when `until` has passed.
        log.warning("that the game was let go could not be written: %s", problem.detail)


def _owe_at_once(context: Context, objects: Objects, debt: SaveDebt) -> None:
    due = replace(debt, until=min(debt.until, datetime.now(UTC)))
    try:
        context.cluster.annotate(
            objects.id, _uid(objects), SAVE_OWED, lambda text: due.as_text() if debt_of_text(text) == debt else text
        )
    except Problem as problem:
        log.warning("that the game is to be let go at once could not be written: %s", problem.detail)


def _uid(objects: Objects) -> str:
    uid = server_uid(objects)
    assert uid is not None
    return uid
