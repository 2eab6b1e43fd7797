"""Commands for a server's game."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from service.console import econ, rcon
from service.console.commands import Console
from service.console.connection import ConsoleError, GameConsole, NoAnswer, as_console_errors
from service.console.plain import plain, shortened
from service.console.stdin import StdinConsole
from service.errors import (
    ConsoleFailed,
    GameDoesNotAnswer,
    NoConsole,
    NoConsoleYet,
    Problem,
    ServerNotFound,
    ServerNotRunning,
)
from service.kube.types import Object
from service.operations.checks import require_not_suspended
from service.operations.context import Context
from service.operations.visibility import Target, suspension_of
from service.servers.accessors import game_container, uid
from service.servers.objects import Objects
from service.servers.saveowed import running_game
from service.servers.spec import server_uid, spec_of_objects, spec_of_values
from service.servers.state import state_of
from service.servers.values import Values, values_of
from service.servers.values import with_console as add_console
from service.telemetry import metrics
from service.tokens import Token

SECONDS = 10.0
"""How long a command may take, with the time that it waits for its turn."""
LONGEST_SECONDS = SECONDS + 15
"""How long to wait for the answer at most: Kubernetes is read before the command is sent."""
LONGEST_OUTPUT = 64 * 1024
"""Bytes of UTF-8."""
_TURNED_OFF = "The console of this server is turned off."

Open = Callable[[float], AbstractContextManager[GameConsole]]
"""What opens a console; takes the seconds that this may take."""


@dataclass(frozen=True)
class Output:
    """What a game said to a command: the text, without control characters, and whether it is cut."""

    text: str
    truncated: bool


def send(context: Context, caller: Token, target: Target, command: str) -> Future[Output]:
    """Send a command to the game once it is its turn.

    Args:
        context: The operation's collaborators.
        caller: Who sends it.
        target: The server.
        command: One line.

    Returns:
        What will have the output within SECONDS; or else ConsoleFailed, GameDoesNotAnswer, ServerNotFound,
        ServerNotRunning, NoConsole, NoConsoleYet, Suspended or ClusterUnavailable.

    Raises:
        Suspended: The server is suspended.
        NoConsole: The game has no way in.
        NoConsoleYet: It has one after its next start.
        ServerNotRunning: The game does not run.
        TooManyCommands: The server has got too many.
    """
    began = time.monotonic()
    deadline = began + SECONDS
    try:
        _check(context, caller, target.objects)
        sent = context.turns.take((target.id, target.uid), lambda: _sent(context, caller, target, command, deadline))
    except Problem as refused:
        metrics.count_command(refused.slug, 0.0)
        raise
    sent.add_done_callback(partial(_count, began))
    return sent


def _count(began: float, sent: Future[Output]) -> None:
    """Count a command that is done."""
    error = sent.exception()
    outcome = "success" if error is None else error.slug if isinstance(error, Problem) else Problem.slug
    metrics.count_command(outcome, time.monotonic() - began)


def output_of(sent: Future[Output]) -> Output:
    """Wait for the output of a command that was sent; raises what `send` says."""
    try:
        return sent.result(LONGEST_SECONDS)
    except TimeoutError as error:
        raise GameDoesNotAnswer() from error


def opened(context: Context, objects: Objects, console: Console) -> Open:
    """What opens the console of the server's pod; raises ConsoleError.

    The pod must have been read just now: an earlier one could lead a password to another customer's pod.
    """
    pod = objects.pod or {}
    if not _is_there(pod, console):
        late = "" if console.kind == "rcon" else ", or comes with its next start"
        raise ConsoleError(f"its remote console is turned off{late}")
    if console.kind == "stdin":
        return lambda seconds: _attached(context, objects.id, uid(pod) or "", seconds)
    if not (address := pod.get("status", {}).get("podIP")):
        raise ConsoleError("it has no address")
    if (password := _password(context, objects.id, console)) is None:
        raise ConsoleError("its console has no password")
    port, connected = _port(pod, console), econ.connected if console.kind == "econ" else rcon.connected
    return lambda seconds: connected(address, port, password, seconds)


def with_console(context: Context, id: int, values: Values) -> Values:
    """The values with the console that the game's folder has come to name since the server was made.

    A pod has it from its start on, so only a call that gives the server a new pod may write these values.
    """
    spec = spec_of_values(values)
    game = context.games.get(spec.game)
    if game is None or game.console is None or not game.console.chart_values or game.errors(spec.options):
        return values
    return add_console(values, values_of(id, spec, game.render(id, spec), context.operator_values))


def _sent(context: Context, caller: Token, target: Target, command: str, deadline: float) -> Output:
    """Send the command now; raises what `send` says."""
    objects = context.cluster.server(target.id)
    if server_uid(objects) != target.uid:
        raise ServerNotFound()
    console = _check(context, caller, objects)
    if time.monotonic() >= deadline:
        raise GameDoesNotAnswer("The game was still busy with earlier commands. This one has not been sent.")
    sent = False
    try:
        with opened(context, objects, console)(deadline - time.monotonic()) as game:
            sent = True
            text, cut = game.ask(command, deadline - time.monotonic())
    except ConsoleError as error:
        if not sent and state_of(objects).state != "running":
            raise ServerNotRunning(f"The game is not ready yet: {error}.") from error
        if isinstance(error, NoAnswer):
            raise GameDoesNotAnswer(
                None if sent else "The game does not answer. It has not got the command."
            ) from error
        raise ConsoleFailed(f"The command failed: {error}.") from error
    text, too_long = shortened(plain(text), LONGEST_OUTPUT)
    return Output(text, cut or too_long)


def _check(context: Context, caller: Token, objects: Objects) -> Console:
    """The way into the game; raises Suspended, NoConsole or ServerNotRunning."""
    spec = spec_of_objects(objects)
    require_not_suspended(caller, suspension_of(objects, spec))
    game = context.games.get(spec.game) if spec else None
    if game is None or game.console is None:
        raise NoConsole()
    if objects.pod is None or running_game(objects) is None:
        raise ServerNotRunning()
    if not _is_there(objects.pod, game.console):
        raise NoConsoleYet() if _comes(context, objects.id, game.console) else NoConsole(_TURNED_OFF)
    return game.console


def _comes(context: Context, id: int, console: Console) -> bool:
    """Whether the server has the console after its next start, if its pod has none."""
    if console.kind == "rcon" or (values := context.releases.current(id)) is None:
        return False
    value = with_console(context, id, values).get(console.kind)
    return bool(value.get("enabled") if isinstance(value, Mapping) else value)


def _is_there(pod: Object, console: Console) -> bool:
    """Whether the pod has been made with the console."""
    return bool(game_container(pod).get("stdin")) if console.kind == "stdin" else _port(pod, console) != 0


def _port(pod: Object, console: Console) -> int:
    """The port of the console in the pod; 0 if it has none."""
    name = "econ" if console.kind == "econ" else console.port
    ports = game_container(pod).get("ports") or []
    return next((int(each["containerPort"]) for each in ports if each.get("name") == name), 0)


def _password(context: Context, id: int, console: Console) -> str | None:
    if console.kind == "econ":
        return context.cluster.econ_password(id)
    password = context.cluster.rcon_password(id)
    return password.text if password else None


@contextmanager
def _attached(context: Context, id: int, pod: str, seconds: float) -> Iterator[GameConsole]:
    """The standard input of the game in the pod with this uid."""
    with ExitStack() as ending:
        with as_console_errors():
            attachment = ending.enter_context(context.cluster.attached(id, pod, seconds))
        yield StdinConsole(attachment)
