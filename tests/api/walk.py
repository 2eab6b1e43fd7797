"""A random walk over the API, beside a model of a few lines that must agree with it all the way.

The walk knows only calls. That of tests/cluster goes over the real cluster, in fewer and slower steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

Answer = tuple[int, dict[str, Any]]
"""Status and JSON of a call."""

Call = Callable[[str, str, Any], Answer]
"""method, path, body → answer."""

SLOTS = st.integers(0, 2)
GB = st.integers(1, 2)
MOTDS = st.sampled_from([None, "one", "two {{ 2 }}"])

# What is worth waiting for: everything that goes by by itself.
_PASSING = {"/problems/operation-in-progress", "/problems/disk-being-erased", "/problems/too-many-operations"}
_PATIENCE = 120.0


@dataclass(frozen=True)
class Server:
    """A server as the walk wants it."""

    ram_gb: int
    motd: str | None
    running: bool

    @property
    def options(self) -> dict[str, str]:
        return {} if self.motd is None else {"motd": self.motd}


class Walk(RuleBasedStateMachine):
    """Every call's answer, and what can be seen after it, are as the model says.

    A subclass sets `call`, and `ids`, the three ids that are this walk's own.
    """

    call: ClassVar[Call]
    ids: ClassVar[tuple[int, int, int]]

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[int, Server] = {}
        self.kept: set[int] = set()
        # Whose disk a game has had; before that there is none that could be kept.
        self.used: set[int] = set()

    # -- steps ---------------------------------------------------------------------------------------------

    @rule(slot=SLOTS, ram_gb=GB, motd=MOTDS, start=st.booleans(), disk=st.sampled_from([None, "reuse", "erase"]))
    def create(self, slot: int, ram_gb: int, motd: str | None, start: bool, disk: str | None) -> None:
        id, wanted = self.ids[slot], Server(ram_gb, motd, start)
        body = {"ram_gb": ram_gb, "disk_gb": 1, "options": wanted.options, "start": start}
        status, answer = self.done("POST", id, "", body if disk is None else {**body, "disk": disk})
        there = self.servers.get(id)
        if there is not None:
            same = (there.ram_gb, there.motd) == (ram_gb, motd)
            assert (status, kind(answer)) == ((200, None) if same else (409, "server-exists"))
        elif id in self.kept and disk is None:
            assert (status, kind(answer)) == (409, "disk-kept")
        else:
            assert (status, answer) == (201, {"success": True})
            self.servers[id] = wanted
            if disk == "erase" or id not in self.kept:
                self.used.discard(id)
            self.kept.discard(id)
            self.note_use(id)

    @rule(slot=SLOTS, how=st.sampled_from(["start", "stop", "restart"]))
    def start_stop_or_restart(self, slot: int, how: str) -> None:
        self.change(self.ids[slot], how, None, lambda there: replace(there, running=how != "stop"))

    @rule(slot=SLOTS, ram_gb=GB)
    def resize(self, slot: int, ram_gb: int) -> None:
        self.change(self.ids[slot], "", {"ram_gb": ram_gb}, lambda there: replace(there, ram_gb=ram_gb))

    @rule(slot=SLOTS, motd=MOTDS)
    def change_options(self, slot: int, motd: str | None) -> None:
        self.change(self.ids[slot], "", {"options": {"motd": motd}}, lambda there: replace(there, motd=motd))

    @rule(slot=SLOTS)
    def shrink(self, slot: int) -> None:
        status, answer = self.done("PATCH", self.ids[slot], "", {"disk_gb": 0})
        assert (status, kind(answer)) == (422, "invalid-request")

    @rule(slot=SLOTS, erase=st.booleans())
    def delete(self, slot: int, erase: bool) -> None:
        id = self.ids[slot]
        status, answer = self.done("DELETE", id, "?disk=erase" if erase else "", None)
        if id not in self.servers and id not in self.kept:
            # While the pod of an erased server still ends, its claim is still there.
            assert (status, kind(answer)) in ((404, "server-not-found"), (200, None))
            return
        assert (status, answer) == (200, {"success": True})
        self.servers.pop(id, None)
        self.kept.add(id) if id in self.used and not erase else self.kept.discard(id)

    # -- what can be seen ----------------------------------------------------------------------------------

    @invariant()
    def servers_are_as_the_model_says(self) -> None:
        for id in self.ids:
            status, answer = self.call("GET", f"/api/v1/server/{id}/", None)
            there = self.servers.get(id)
            if there is None:
                assert status == 404 or answer["state"] == "deleting", answer
                continue
            seen = {key: answer[key] for key in ("id", "game", "ram_gb", "disk_gb", "options", "wanted")}
            assert seen == {
                "id": id,
                "game": "minecraft",
                "ram_gb": there.ram_gb,
                "disk_gb": 1,
                "options": there.options,
                "wanted": "running" if there.running else "stopped",
            }

    @invariant()
    def kept_disks_are_as_the_model_says(self) -> None:
        status, answer = self.call("GET", "/api/v1/disk/", None)
        assert status == 200
        assert {disk["id"] for disk in answer["disks"]} & set(self.ids) == self.kept

    def teardown(self) -> None:
        """Erase whatever is left, and wait until the next walk may begin with nothing."""
        for id in self.ids:
            self.done("DELETE", id, "?disk=erase", None)
        deadline = time.monotonic() + _PATIENCE
        while any(self.call("GET", f"/api/v1/server/{id}/", None)[0] != 404 for id in self.ids):
            assert time.monotonic() < deadline
            time.sleep(0.2)

    # -- parts ---------------------------------------------------------------------------------------------

    def change(self, id: int, path: str, body: Any, effect: Callable[[Server], Server]) -> None:
        status, answer = self.done("PATCH", id, path, body)
        there = self.servers.get(id)
        if there is None:
            assert (status, kind(answer)) == (404, "server-not-found")
            return
        assert (status, answer["success"]) == (200, True)
        self.servers[id] = effect(there)
        self.note_use(id)

    def note_use(self, id: int) -> None:
        if self.servers[id].running:
            self.used.add(id)

    def done(self, method: str, id: int, path: str, body: Any) -> Answer:
        """The answer to a call, sent again for as long as it says that waiting helps."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            status, answer = self.call(method, f"/api/v1/server/{id}/{path}", body)
            if answer.get("type") not in _PASSING or time.monotonic() > deadline:
                return status, answer
            time.sleep(0.2)


def kind(answer: dict[str, Any]) -> str | None:
    """The slug of a problem, or None for a success."""
    type_ = answer.get("type")
    return None if type_ is None else str(type_).removeprefix("/problems/")
