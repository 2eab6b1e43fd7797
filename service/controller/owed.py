"""Lets games go that were told to hold their world still, when nobody else does.

What is owed stands on the StatefulSet, written by whoever holds the game still (`operations/hold.py`). It is paid here
when its time has passed, or when its operation has ended or is gone, for as long as the game runs. A game that does not
answer is tried again, less and less often, and delays no other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from structlog.contextvars import bound_contextvars

from service.console.connection import ConsoleError
from service.controller.agenda import Agenda
from service.controller.leader import Deposed, Term
from service.errors import Problem
from service.kube.types import Object
from service.operations.context import Context
from service.operations.hold import pay
from service.servers.accessors import annotation
from service.servers.names import SAVE_OWED
from service.servers.saveowed import SaveDebt, debt_of_text
from service.telemetry import metrics

log = logging.getLogger(__name__)

AT_ONCE = 8
LOOK = timedelta(seconds=5)
"""How often the operation is looked at for which a game holds still."""
LONGEST_PAUSE = timedelta(seconds=60)


class Owed:
    """The part of the controller.

    Args:
        context: The collaborators of the operations.
        clock: Returns the current time.
    """

    def __init__(self, context: Context, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._context = context
        self._clock = clock
        self.agenda: Agenda[int] = Agenda(clock)
        self._lock = threading.Lock()
        self._debts: dict[int, SaveDebt] = {}
        # How often a game has not answered, and which debt that is about.
        self._tries: dict[int, tuple[SaveDebt, int]] = {}

    def start(self) -> None:
        """Watch what is owed."""
        self._context.cluster.subscribe(self._changed)

    def lead(self, term: Term) -> None:
        """Start the threads."""
        metrics.show_held_games(self.held, self.overdue)
        for _ in range(AT_ONCE):
            threading.Thread(target=self._work, args=(term,), name="owed", daemon=True).start()

    def held(self) -> int:
        """How many games hold still."""
        with self._lock:
            return len(self._debts)

    def overdue(self) -> float:
        """For how many seconds the game should have been let go that has waited longest; 0 if none should."""
        with self._lock:
            first = min((debt.until for debt in self._debts.values()), default=None)
        return 0.0 if first is None else max(0.0, (self._clock() - first).total_seconds())

    def _changed(self, id: int, kind: str, before: Object | None, now: Object, deleted: bool) -> None:
        if kind != "statefulset":
            return
        debt = None if deleted else debt_of_text(annotation(now, SAVE_OWED))
        with self._lock:
            if debt == self._debts.get(id):
                return
            if debt is None:
                del self._debts[id]
                self._tries.pop(id, None)
                return
            self._debts[id] = debt
        self.agenda.put(id, self._clock(), urgent=True)

    def _work(self, term: Term) -> None:
        try:
            while True:
                id = self.agenda.take()
                assert id is not None
                again = self._clock() + LOOK
                try:
                    with bound_contextvars(server=id):
                        again = self.look(term, id) or datetime.max.replace(tzinfo=UTC)
                except Problem as problem:
                    log.debug("what is owed to the game is not known: %s", problem.detail)
                except Deposed:
                    raise
                except Exception:
                    log.exception("the game could not be let go; it is tried again")
                finally:
                    if again.year < datetime.max.year:
                        self.agenda.put(id, again)
                    self.agenda.done(id)
        except Deposed:
            pass

    def look(self, term: Term, id: int) -> datetime | None:
        """Let the server's game go if it is due; returns when to look again, None if nothing is owed."""
        with self._lock:
            debt = self._debts.get(id)
        if debt is None:
            return None
        if (objects := self._context.cluster.known(id)) is None:
            return self._clock() + LOOK
        if self._clock() < debt.until and not self._has_ended(debt.operation):
            return min(debt.until, self._clock() + LOOK)
        with term.step():
            try:
                paid = pay(self._context, objects, debt)
            except ConsoleError as error:
                return self._later(id, debt, str(error))
        metrics.count_let_go("success" if paid else "gone")
        log.info(
            "the game was let go for the operation %s" if paid else "nothing is owed any more for the operation %s",
            debt.operation,
        )
        return None

    def _has_ended(self, operation: str) -> bool:
        """Whether the operation needs no game any more. Raises ClusterUnavailable."""
        found = self._context.operations.get(operation)
        return found is None or found.ended

    def _later(self, id: int, debt: SaveDebt, why: str) -> datetime:
        """When to try again."""
        metrics.count_let_go("no-answer")
        with self._lock:
            before, tries = self._tries.get(id, (debt, 0))
            tries = tries + 1 if before == debt else 1
            self._tries[id] = debt, tries
        log.log(
            logging.WARNING if tries == 1 else logging.DEBUG, "the game holds still and cannot be let go yet: %s", why
        )
        return self._clock() + min(LONGEST_PAUSE, timedelta(seconds=2 ** min(tries - 1, 10)))
