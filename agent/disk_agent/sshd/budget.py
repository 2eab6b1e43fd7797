"""How much of the container's log each server may fill, so that no flood pushes out another server's lines.

The kubelet keeps a limited amount of a container's log (10 MiB in a file, by default) and drops the oldest. So each
server has three allowances: for its file operations, for its logins and sessions, and for what clients without a login
try under its name, so that they cannot hide a login. Clients that name no server share one allowance. Lines beyond an
allowance are counted, and the count is logged. Pure: times are passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

Key = tuple[int | None, str]
"""The server whose line it is (None: no server of this node), and the kind of line."""

# Bytes at once, and bytes per second after that.
FILES = (512 * 1024, 1024.0)
SESSIONS = (512 * 1024, 256.0)
REFUSALS = (256 * 1024, 64.0)
# A count is logged once the allowance has refilled by this many bytes, or after this many seconds.
_CALM_BYTES, _COUNT_SECONDS = 4096, 60.0


@dataclass
class _Allowance:
    burst: float
    rate: float
    remaining: float
    refilled_at: float
    omitted: int = 0
    omitted_since: float = 0.0

    def refill(self, now: float) -> None:
        self.remaining = min(self.burst, self.remaining + (now - self.refilled_at) * self.rate)
        self.refilled_at = now


class Budget:
    """What remains of each allowance, by key."""

    def __init__(self) -> None:
        self._allowances: dict[Key, _Allowance] = {}

    def admits(self, key: Key, limit: tuple[int, float], now: float) -> bool:
        """Whether a line may be written; pay for it with `spend`. A line that may not be written is counted.

        Args:
            key: Whose line it is.
            limit: Bytes at once, and bytes per second after that.
            now: The current time in seconds.
        """
        allowance = self._allowances.setdefault(key, _Allowance(*limit, limit[0], now))
        allowance.refill(now)
        # While a count waits to be logged, its line comes first.
        if allowance.remaining <= 0 or (allowance.omitted and allowance.remaining < _CALM_BYTES):
            allowance.omitted_since = allowance.omitted_since if allowance.omitted else now
            allowance.omitted += 1
            return False
        return True

    def spend(self, key: Key, size: int) -> None:
        """Pay `size` bytes for a line that was admitted; the last line may cost more than remains."""
        self._allowances[key].remaining -= size

    def omitted(self, now: float) -> list[tuple[Key, int]]:
        """The counts to log now, each returned once. Full allowances are forgotten."""
        due = []
        for key, allowance in list(self._allowances.items()):
            allowance.refill(now)
            if allowance.omitted and (
                allowance.remaining >= _CALM_BYTES or now - allowance.omitted_since >= _COUNT_SECONDS
            ):
                due.append((key, allowance.omitted))
                allowance.omitted = 0
            elif not allowance.omitted and allowance.remaining >= allowance.burst:
                del self._allowances[key]
        return due
