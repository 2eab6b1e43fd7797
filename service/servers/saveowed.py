"""What is owed to a game that was told to hold its world still: to be let go. An annotation of the StatefulSet. Pure.

It is written before the first command, so that whoever comes next, after any kill, knows. A game that has started again
since saves as always, so it is owed nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from service.kube.times import stamp
from service.servers.accessors import annotation, game_status, uid
from service.servers.names import SAVE_OWED
from service.servers.objects import Objects


@dataclass(frozen=True)
class SaveDebt:
    """What is owed.

    Attributes:
        operation: The id of the operation for which the game holds still.
        pod, container: The uid of the pod, and the id of the game's container, which each start changes.
        until: When the game is let go at the latest, whoever does it.
    """

    operation: str
    pod: str
    container: str
    until: datetime

    def as_text(self) -> str:
        """The annotation's text, which `save_debt` reads."""
        return json.dumps({**asdict(self), "until": stamp(self.until, micro=True)})

    def is_owed_to(self, objects: Objects) -> bool:
        """Whether the game that was told to hold still is the one that runs."""
        return running_game(objects) == (self.pod, self.container)


def save_debt(objects: Objects) -> SaveDebt | None:
    """What is owed to the server's game; None if nothing is."""
    return debt_of_text(annotation(objects.statefulset, SAVE_OWED))


def debt_of_text(text: str | None) -> SaveDebt | None:
    """What the annotation's text says; None if there is none, or it cannot be read."""
    try:
        fields = json.loads(text or "")
        until = datetime.fromisoformat(fields["until"])
        if until.tzinfo is None:
            return None
        return SaveDebt(str(fields["operation"]), str(fields["pod"]), str(fields["container"]), until)
    except (KeyError, TypeError, ValueError):
        return None


def running_game(objects: Objects) -> tuple[str, str] | None:
    """The uid of the pod and the id of the game's container that runs in it; None if none does."""
    if objects.pod is None or (pod := uid(objects.pod)) is None:
        return None
    status = game_status(objects.pod) or {}
    container = str(status.get("containerID") or "")
    return (pod, container) if container and "running" in (status.get("state") or {}) else None
