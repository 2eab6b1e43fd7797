"""A cluster in memory whose games take until the test says so to answer."""

from __future__ import annotations

from tests.support.fakes import World


class SlowWorld(World):
    """A World in which a server that should run is starting until `answer`."""

    def run(self, id: int) -> None:
        super().run(id)
        self.pods[id]["status"]["conditions"] = []

    def answer(self, id: int) -> None:
        """Make the server's game answer."""
        super().run(id)
