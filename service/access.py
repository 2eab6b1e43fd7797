"""What a call asks of its caller, wherever it comes in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Subject(Enum):
    """What the id in a call has to be, to a caller who may see it; anything else answers 404."""

    NONE = "there is no id"
    NEW = "any id: the operation itself judges what is there already"
    SERVER = "a server"
    ENDING = "a server, or what is left of a deleted one while its game still ends"
    REMAINS = "a server, or the disk that is kept of a deleted one"


@dataclass(frozen=True)
class Access:
    """A scope, or None of a public call; what the id is about; and whether each such call is audited."""

    scope: str | None
    subject: Subject = Subject.NONE
    audited: bool = False
