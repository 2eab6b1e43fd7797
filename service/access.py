"""What a call requires of its caller. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Subject(Enum):
    """What the id in a call must name; an id that names anything else, or that the caller may not see, answers 404."""

    NONE = "the call has no id"
    NEW = "any id: the operation itself checks what exists"
    SERVER = "a server"
    ADDRESS = "a server, of which only the address is asked"
    ENDING = "a server, or a deleted one whose game has not ended yet"
    REMAINS = "a server, or the kept disk of a deleted one"


@dataclass(frozen=True)
class Access:
    """What one route requires.

    Attributes:
        scope: The scope that the caller's token needs, or None for a public call.
        subject: What the id in the path must name.
        audited: Whether each call leaves an audit line.
    """

    scope: str | None
    subject: Subject = Subject.NONE
    audited: bool = False
