"""A part of the controller: one thing that happens without a call."""

from __future__ import annotations

from typing import Protocol

from service.controller.leader import Term


class Part(Protocol):
    """A part of the controller."""

    def start(self) -> None:
        """Start to watch. Both pods do; nothing may be written yet."""

    def lead(self, term: Term) -> None:
        """Begin to work, because this pod has become the active one. It starts threads and returns at once.

        What the threads write, they write in `term.step()`. They end with the process, which ends when the Lease is
        lost.
        """
