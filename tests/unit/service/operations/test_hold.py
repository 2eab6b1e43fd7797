"""A game holds its world still for a copy of its disk, and never counts as saved when it was not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from service.console.commands import Command, Console
from service.errors import ClusterUnavailable, OperationInProgress, ServerNotFound
from service.operations import hold as holding
from service.operations.hold import Held, hold, pay, release
from service.servers.saveowed import SaveDebt
from tests.support.econ_game import econ_game
from tests.support.held_world import OPERATION, HeldWorld
from tests.support.rcon_game import RconGame, rcon_game
from tests.support.stdin_game import StdinGame
from tests.support.waiting import until

SAVED = Held("game-saved")


@pytest.fixture
def game() -> Iterator[RconGame]:
    with rcon_game() as game:
        yield game


@pytest.fixture
def place(game: RconGame, monkeypatch: pytest.MonkeyPatch) -> HeldWorld:
    for name in ("LOGIN_SECONDS", "CHECK_SECONDS", "RELEASE_SECONDS"):
        monkeypatch.setattr(holding, name, 0.5)
    return HeldWorld(game.port)


def debt_of(operation: str = OPERATION, *, pod: str = "pod-first", seconds: float = 60) -> SaveDebt:
    return SaveDebt(operation, pod, "containerd://first", datetime.now(UTC) + timedelta(seconds=seconds))


def test_a_game_saves_and_holds_still_and_goes_on(place: HeldWorld, game: RconGame) -> None:
    """First it writes nothing by itself any more, and then all that it has in memory."""
    assert hold(place.context, place.objects, OPERATION) == SAVED
    assert game.said == ["save-off", "save-all flush"]
    assert not game.saving
    assert place.debt is not None
    assert place.debt.operation == OPERATION
    assert release(place.context, place.objects, OPERATION) == SAVED
    assert game.saving
    assert game.said[2:] == ["save-off", "save-on"]
    assert place.debt is None


def test_what_is_owed_is_written_before_the_first_command(place: HeldWorld, game: RconGame) -> None:
    """With who owes it, to which game, and until when."""
    owed: list[SaveDebt | None] = []
    game.before = lambda command: owed.append(place.debt)
    before = datetime.now(UTC)
    hold(place.context, place.objects, OPERATION, lasts=100)
    assert owed[0] is not None
    assert owed[0] == owed[1] == place.debt
    assert (owed[0].pod, owed[0].container) == ("pod-first", "containerd://first")
    assert timedelta(seconds=129) < owed[0].until - before < timedelta(seconds=131)


def by_standard_input(place: HeldWorld, stack: ExitStack) -> list[str]:
    shell = StdinGame()
    shell.answer = lambda line: iter([(0.0, b"[chat] hello\n"), (0.0, f"done with {line}\n".encode())])
    place.world.inputs[1] = shell.attach
    place.world.pods[1]["spec"]["containers"][0]["stdin"] = True
    return shell.said


def by_an_external_console(place: HeldWorld, stack: ExitStack) -> list[str]:
    game = stack.enter_context(econ_game())
    place.world.values[1]["econ"] = {"enabled": True}
    game.answers = {line: [f"[world]: done with {line}"] for line in ("off", "flush", "on")}
    port = {"name": "econ", "containerPort": game.port, "protocol": "TCP"}
    place.world.pods[1]["spec"]["containers"][0]["ports"].append(port)
    return game.said


@pytest.mark.parametrize(("kind", "way"), [("stdin", by_standard_input), ("econ", by_an_external_console)])
def test_a_world_is_held_still_whatever_the_way_into_the_game(
    place: HeldWorld,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    way: Callable[[HeldWorld, ExitStack], list[str]],
) -> None:
    """The same commands in the same order, and each must be answered as expected."""
    for name in ("LOGIN_SECONDS", "CHECK_SECONDS", "RELEASE_SECONDS"):
        monkeypatch.setattr(holding, name, 20)
    place.game.console = Console(kind)
    place.change(
        hold=(Command("off", ("done with off",)), Command("flush", ("done with flush",))),
        release=(Command("on", ("done with on",)),),
        check=Command("off", ("done with off",)),
    )
    with ExitStack() as stack:
        said = way(place, stack)
        assert hold(place.context, place.objects, OPERATION) == SAVED
        assert release(place.context, place.objects, OPERATION) == SAVED
    assert said == ["off", "flush", "off", "on"]
    assert place.debt is None


def test_nothing_is_said_to_the_game_while_kubernetes_is_away(place: HeldWorld, game: RconGame) -> None:
    """Else nobody would know what is owed."""
    objects = place.objects
    place.world.away = True
    with pytest.raises(ClusterUnavailable):
        hold(place.context, objects, OPERATION)
    assert game.clients == 0


def test_a_game_does_not_hold_still_for_as_long_as_kubernetes_is_away(place: HeldWorld, game: RconGame) -> None:
    """Whoever has told it to can let it go. What comes of the backup is found out later."""
    hold(place.context, place.objects, OPERATION)
    objects = place.objects
    place.world.away = True
    with pytest.raises(ClusterUnavailable):
        release(place.context, objects, OPERATION)
    assert game.saving
    place.world.away = False
    assert place.debt is not None
    assert release(place.context, objects, OPERATION).consistency == "crash-like"
    assert game.saving
    assert place.debt is None


def test_the_same_operation_may_hold_again(place: HeldWorld, game: RconGame) -> None:
    """After a kill between the first command and the record of it."""
    hold(place.context, place.objects, OPERATION)
    assert hold(place.context, place.objects, OPERATION) == SAVED
    assert game.flushed == 2
    assert release(place.context, place.objects, OPERATION) == SAVED


def test_a_game_holds_still_for_one_operation_at_a_time(place: HeldWorld, game: RconGame) -> None:
    """The other one waits, and the first one is not disturbed."""
    hold(place.context, place.objects, OPERATION)
    with pytest.raises(OperationInProgress):
        hold(place.context, place.objects, "op-2")
    assert release(place.context, place.objects, "op-2").consistency == "crash-like"
    assert not game.saving
    assert release(place.context, place.objects, OPERATION) == SAVED
    assert hold(place.context, place.objects, "op-2") == SAVED


@pytest.mark.parametrize("debt", [debt_of("op-2", seconds=-1), debt_of("op-2", pod="pod-before")])
def test_what_nobody_is_owed_stops_nobody(place: HeldWorld, game: RconGame, debt: SaveDebt) -> None:
    """A hold whose time has passed, and one of a game that is gone."""
    place.owe(debt)
    assert hold(place.context, place.objects, OPERATION) == SAVED
    assert release(place.context, place.objects, OPERATION) == SAVED
    assert game.saving


@pytest.mark.parametrize(
    "answer", ["Unable to save the game (is there enough disk space?)", "Saving the game (this may take a moment!)", ""]
)
def test_what_was_not_saved_is_never_called_saved(place: HeldWorld, game: RconGame, answer: str) -> None:
    """The game goes on at once, and the reason does not repeat what the game says."""
    game.answers["save-all flush"] = answer
    held = hold(place.context, place.objects, OPERATION)
    assert held == Held("crash-like", "The game did not save: it did not answer 'save-all flush' as expected.")
    assert game.saving
    assert place.debt is None


def test_the_game_is_not_told_to_save_unless_it_writes_nothing_by_itself(place: HeldWorld, game: RconGame) -> None:
    """Else what it writes after that would be in the copy in part."""
    game.answers["save-off"] = "Unknown or incomplete command"
    assert hold(place.context, place.objects, OPERATION).consistency == "crash-like"
    assert game.said == ["save-off", "save-on"]


def test_a_save_that_takes_too_long_is_given_up(place: HeldWorld, game: RconGame) -> None:
    """The game is let go as soon as it answers again: until then, that is owed at once."""
    place.change(seconds=0.3)
    game.answers["save-all flush"] = None
    game.answers["save-on"] = None
    began = time.monotonic()
    held = hold(place.context, place.objects, OPERATION)
    assert time.monotonic() - began < 2
    assert held == Held("crash-like", "The game did not save: it did not answer in time.")
    assert place.debt is not None
    assert place.debt.until <= datetime.now(UTC)
    del game.answers["save-on"]
    assert pay(place.context, place.objects, place.debt)
    assert game.saving
    assert place.debt is None


def test_a_game_that_is_too_busy_is_not_told_to_save(place: HeldWorld, game: RconGame) -> None:
    """To save everything could make Minecraft end itself."""
    place.change(seconds=1)
    game.pause = 0.3
    held = hold(place.context, place.objects, OPERATION)
    assert held == Held("crash-like", "The game did not save: it did not answer in time.")
    until(lambda: game.said == ["save-off", "save-on"], 5)


def test_a_save_may_take_its_time(place: HeldWorld, game: RconGame) -> None:
    """As long as the game's folder says."""
    place.change(seconds=1)
    game.before = lambda command: time.sleep(0.5 * (command == "save-all flush"))
    assert hold(place.context, place.objects, OPERATION) == SAVED


def turned_off(place: HeldWorld) -> None:
    place.world.pods[1]["spec"]["containers"][0]["ports"].pop()


def no_address(place: HeldWorld) -> None:
    del place.world.pods[1]["status"]["podIP"]


def starting(place: HeldWorld) -> None:
    place.world.pods[1]["status"]["conditions"] = []


def crashed(place: HeldWorld) -> None:
    place.container("first", terminated={"exitCode": 1})


def without_console(place: HeldWorld) -> None:
    place.create("luanti")


def unknown_game(place: HeldWorld) -> None:
    place.create("removed")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (turned_off, "The game could not be told to save: its remote console is turned off."),
        (no_address, "The game could not be told to save: it has no address."),
        (starting, "The game was not ready for players, so it could not be told to save."),
        (crashed, "The game was not ready for players, so it could not be told to save."),
        (without_console, "This game has no command that makes it hold still."),
        (unknown_game, "This game has no command that makes it hold still."),
    ],
)
def test_a_game_that_cannot_be_told_is_left_alone(place: HeldWorld, game: RconGame, change: object, why: str) -> None:
    """Nothing is owed to it; and a backup says why it is as after a power cut."""
    assert callable(change)
    change(place)
    assert hold(place.context, place.objects, OPERATION) == Held("crash-like", why)
    assert place.debt is None
    assert game.clients == 0


def test_a_console_that_does_not_let_us_in(place: HeldWorld, game: RconGame) -> None:
    """The customer has another password in the game's own files, or has turned the console off there."""
    game.password = "his own"
    held = hold(place.context, place.objects, OPERATION)
    assert held == Held("crash-like", "The game did not save: its remote console refuses the password.")
    assert place.debt is not None, "who knows what an earlier try has said"
    assert place.debt.until <= datetime.now(UTC)


def test_a_password_is_never_sent_to_where_another_pod_was(place: HeldWorld, game: RconGame) -> None:
    """The pod is read again: what the caller has read may be old, and addresses are used again."""
    old = place.objects
    place.start("second")
    place.world.pods[1]["status"]["podIP"] = "127.0.0.9"
    assert hold(place.context, old, OPERATION).consistency == "crash-like"
    assert game.clients == 0


def test_another_server_has_the_id(place: HeldWorld, game: RconGame) -> None:
    old = place.objects
    place.world.values[1]["server"]["uid"] = "uid-2"
    place.world.apply(1, place.world.values[1])
    with pytest.raises(ServerNotFound):
        hold(place.context, old, OPERATION)
    assert release(place.context, old, OPERATION).consistency == "crash-like"
    assert game.clients == 0


@pytest.mark.parametrize("start", ["pod", "container"])
def test_a_game_that_has_started_again_did_not_hold_still(place: HeldWorld, game: RconGame, start: str) -> None:
    """It is owed nothing, and is told nothing."""
    hold(place.context, place.objects, OPERATION)
    (place.start if start == "pod" else place.container)("second")
    said = list(game.said)
    released = release(place.context, place.objects, OPERATION)
    assert released == Held("crash-like", "The game ended or started again while its disk was copied.")
    assert game.said == said
    assert place.debt is None


def test_a_game_that_was_let_go_did_not_hold_still(place: HeldWorld, game: RconGame) -> None:
    """By the controller, because its time had passed."""
    hold(place.context, place.objects, OPERATION)
    assert place.debt is not None
    assert pay(place.context, place.objects, place.debt)
    assert game.saving
    released = release(place.context, place.objects, OPERATION)
    assert released == Held("crash-like", "The game was let go before the copy was made.")


def test_a_copy_that_took_too_long_is_not_called_saved(place: HeldWorld, game: RconGame) -> None:
    """Somebody else may have let the game go at any moment since."""
    hold(place.context, place.objects, OPERATION, lasts=-place.save.seconds)
    released = release(place.context, place.objects, OPERATION)
    assert released == Held("crash-like", "The copy took longer than the game may be held.")
    assert game.saving
    assert place.debt is None


def test_a_player_who_turned_saving_on_is_noticed(place: HeldWorld, game: RconGame) -> None:
    """Or a plugin of his that makes backups too."""
    hold(place.context, place.objects, OPERATION)
    game.saving = True
    released = release(place.context, place.objects, OPERATION)
    assert released == Held("crash-like", "The game did not hold still until the copy was made.")
    assert game.saving


def test_a_game_without_a_check_is_believed(place: HeldWorld, game: RconGame) -> None:
    place.change(check=None)
    hold(place.context, place.objects, OPERATION)
    assert release(place.context, place.objects, OPERATION) == SAVED
    assert game.said == ["save-off", "save-all flush", "save-on"]


def test_a_game_that_cannot_be_let_go_is_owed_it_at_once(place: HeldWorld, game: RconGame) -> None:
    """The backup does not wait for it: the copy is made already."""
    hold(place.context, place.objects, OPERATION)
    game.answers["save-on"] = "What?"
    assert release(place.context, place.objects, OPERATION) == SAVED
    assert place.debt is not None
    assert place.debt.until <= datetime.now(UTC)


def test_an_older_version_of_the_game_says_it_in_other_words(place: HeldWorld, game: RconGame) -> None:
    """Minecraft 1.12 and older."""
    game.answers["save-all flush"] = "Saving...Flushing all saves...Flushing completedSaved the world"
    game.answers["save-on"] = "Turned on world auto-saving"
    assert hold(place.context, place.objects, OPERATION) == SAVED
    assert release(place.context, place.objects, OPERATION) == SAVED
    assert place.debt is None


def test_only_what_is_owed_is_paid(place: HeldWorld, game: RconGame) -> None:
    """The game may hold still for another operation by now."""
    hold(place.context, place.objects, OPERATION)
    assert not pay(place.context, place.objects, debt_of())
    assert not game.saving
    old = place.objects
    place.world.statefulsets.clear()
    place.world.pods.clear()
    assert not pay(place.context, old, debt_of())
