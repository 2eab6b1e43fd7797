"""A game that holds its world still is let go by the active controller, whoever has told it to, and whoever died."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.controller.leader import Deposed, Term
from service.controller.owed import LONGEST_PAUSE, LOOK, Owed
from service.operations import hold as holding
from service.operations.hold import hold, release
from service.operations.operation import Server, new_operation
from service.servers.names import SAVE_OWED
from service.servers.saveowed import SaveDebt, debt_of_text
from service.telemetry.metrics import REGISTRY
from service.tokens import Token
from tests.support.held_world import HeldWorld
from tests.support.rcon_game import RconGame, rcon_game
from tests.support.waiting import until

MAKER = Token("shop", "", frozenset({"backup:create"}), "", None)


class Play:
    """A server whose game holds still for an operation, and a controller at a time that the test moves."""

    def __init__(self, game: RconGame) -> None:
        self.game, self.place = game, HeldWorld(game.port)
        self.now = datetime.now(UTC)
        server = Server(1, "uid-1", "")
        operation = new_operation(MAKER, None, "backup", "now", {}, {}, [server])
        self.operation = self.place.context.operations.create(operation, [server])
        self.controller = self.another()
        self.term = Term(cast(Any, SimpleNamespace(remaining=lambda: 9.0)), "me")

    def another(self) -> Owed:
        """A controller that watches from now on."""
        owed = Owed(self.place.context, lambda: self.now)
        owed.start()
        return owed

    def hold(self) -> None:
        assert hold(self.place.context, self.place.objects, self.operation.id).consistency == "game-saved"
        assert not self.game.saving

    def look(self) -> datetime | None:
        return self.controller.look(self.term, 1)

    def end(self) -> None:
        """The operation ends."""
        self.place.context.operations.show(replace(self.operation, state="failed", reason="?"), lambda: None)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    for name in ("LOGIN_SECONDS", "CHECK_SECONDS", "RELEASE_SECONDS"):
        monkeypatch.setattr(holding, name, 0.5)
    with rcon_game() as game:
        yield Play(game)


def let_go(outcome: str) -> float:
    return REGISTRY.get_sample_value("gameserver_held_games_let_go_total", {"outcome": outcome}) or 0.0


def test_a_game_is_left_to_the_operation_that_is_at_work(play: Play) -> None:
    """Until its time has passed; the controller looks now and then whether it still is."""
    play.hold()
    assert play.look() == play.now + LOOK
    assert not play.game.saving
    debt = play.place.debt
    assert debt is not None
    play.now = debt.until - timedelta(seconds=2)
    assert play.look() == debt.until


def test_a_game_is_let_go_when_its_time_has_passed(play: Play) -> None:
    """Even if its operation goes on: that will see that the game did not hold still."""
    play.hold()
    play.now += timedelta(hours=1)
    assert play.controller.held() == 1
    assert 3000 < play.controller.overdue() < 3600
    assert play.look() is None
    assert play.game.saving
    assert play.place.debt is None
    assert (play.controller.held(), play.controller.overdue()) == (0, 0.0)
    assert release(play.place.context, play.place.objects, play.operation.id).consistency == "crash-like"


def test_a_game_is_let_go_when_its_operation_has_ended(play: Play) -> None:
    """Nobody else would do it."""
    play.hold()
    play.end()
    assert play.look() is None
    assert play.game.saving


def test_a_game_is_let_go_when_nobody_knows_its_operation(play: Play) -> None:
    """The record is gone, or it was somebody else who has written the annotation."""
    play.hold()
    play.place.context.operations.delete(play.operation)
    assert play.look() is None
    assert play.game.saving


def test_the_controller_that_takes_over_pays_what_another_has_left(play: Play) -> None:
    """All that it knows is the annotation, which its watch has found."""
    play.hold()
    play.end()
    play.controller = play.another()
    play.place.world.tell(1, "statefulset", None, play.place.world.statefulsets[1])
    play.controller.lead(play.term)
    until(lambda: play.game.saving, 5)
    until(lambda: play.place.debt is None, 5)
    play.term.end()


def test_a_game_that_has_started_again_is_owed_nothing(play: Play) -> None:
    """It is told nothing, and the annotation goes."""
    play.hold()
    play.end()
    play.place.start("second")
    said = list(play.game.said)
    gone = let_go("gone")
    assert play.look() is None
    assert play.game.said == said
    assert play.place.debt is None
    assert let_go("gone") == gone + 1


def test_a_game_that_does_not_answer_is_tried_again_less_and_less_often(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """For as long as it runs; the log says so once."""
    play.hold()
    play.end()
    play.game.password = "changed"
    pauses = []
    for _ in range(9):
        again = play.look()
        assert again is not None
        pauses.append((again - play.now).total_seconds())
        play.now = again
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert LONGEST_PAUSE.total_seconds() == 60
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["the game holds still and cannot be let go yet: its remote console refuses the password"]
    play.game.password = "password-1"
    assert play.look() is None
    assert play.game.saving


def test_an_old_controller_does_nothing_any_more(play: Play) -> None:
    """It has lost the Lease: another one is at work."""
    play.hold()
    play.end()
    play.term.end()
    with pytest.raises(Deposed):
        play.look()
    assert not play.game.saving


def test_a_deleted_server_is_forgotten(play: Play) -> None:
    play.hold()
    before = play.place.world.statefulsets.pop(1)
    play.place.world.pods.clear()
    play.place.world.tell(1, "statefulset", before, before, deleted=True)
    assert play.look() is None
    assert play.controller.held() == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        '{"operation": "x"}',
        json.dumps({"operation": "x", "pod": "p", "container": "c", "until": "x"}),
        json.dumps({"operation": "x", "pod": "p", "container": "c", "until": "2026-01-01T00:00:00"}),
    ],
)
def test_what_is_no_debt_counts_as_none(play: Play, text: str) -> None:
    """Somebody has written it by hand."""
    assert debt_of_text(text) is None
    play.place.cluster.annotate(1, "uid-1", SAVE_OWED, lambda _: text)
    assert play.look() is None


def test_a_debt_survives_as_text() -> None:
    debt = SaveDebt("op-1", "pod", "containerd://1", datetime(2026, 11, 27, 7, 0, 0, 250_000, tzinfo=UTC))
    assert debt_of_text(debt.as_text()) == debt
