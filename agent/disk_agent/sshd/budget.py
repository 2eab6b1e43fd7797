"""How much of the container's log each server may fill, so that nobody's flood flushes out another's lines.

The kubelet keeps so much of a container's log (10 MiB in a file, by default) and drops the oldest. So each server
has allowances: for its file operations, for its logins and sessions, and for what strangers try in its name, so that
they hide no login; those who name no server share one. What goes beyond is counted, and the count is logged. Pure:
times come in as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

Key = tuple[int | None, str]
"""Whose line it is (None: a stranger's), and what it is about."""

# Bytes at once, and bytes a second after that.
FILES = (512 * 1024, 1024.0)
SESSIONS = (512 * 1024, 256.0)
REFUSALS = (256 * 1024, 64.0)
# A count is logged when the flood has let up for so many bytes, or after so many seconds.
_CALM, _PATIENCE = 4096, 60.0


@dataclass
class _Allowance:
    burst: float
    rate: float
    left: float
    at: float
    omitted: int = 0
    since: float = 0.0

    def fill(self, now: float) -> None:
        self.left = min(self.burst, self.left + (now - self.at) * self.rate)
        self.at = now


class Budget:
    """What is left of each allowance, by whose it is."""

    def __init__(self) -> None:
        self._allowances: dict[Key, _Allowance] = {}

    def admits(self, key: Key, limit: tuple[int, float], now: float) -> bool:
        """Whether a line may be written, to be paid for by `spend`; if not, it is counted."""
        found = self._allowances.setdefault(key, _Allowance(*limit, limit[0], now))
        found.fill(now)
        # While a count is waiting, its line comes first.
        if found.left <= 0 or (found.omitted and found.left < _CALM):
            found.since = found.since if found.omitted else now
            found.omitted += 1
            return False
        return True

    def spend(self, key: Key, size: int) -> None:
        """Pay for a line that was admitted; the last one may cost more than there is."""
        self._allowances[key].left -= size

    def omitted(self, now: float) -> list[tuple[Key, int]]:
        """The counts that are due, each once; full allowances are forgotten."""
        due = []
        for key, found in list(self._allowances.items()):
            found.fill(now)
            if found.omitted and (found.left >= _CALM or now - found.since >= _PATIENCE):
                due.append((key, found.omitted))
                found.omitted = 0
            elif not found.omitted and found.left >= found.burst:
                del self._allowances[key]
        return due
