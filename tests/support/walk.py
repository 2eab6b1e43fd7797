"""A random walk over the API, and the small model that must agree with it after each step.

tests/api walks over the fakes, in thousands of steps; tests/cluster walks over the real cluster, in a few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.waiting import until

SLOTS = 3
#: How long a call that answers `Retry-After`, and a server's end, may take. A claim waits for the grace period of its
#: pod, which is two minutes.
PATIENCE_SECONDS = 150

_SLOT = st.integers(0, SLOTS - 1)
_GB = st.integers(1, 3)
_MOTD = st.sampled_from([None, "one", "two {{ 2 }}"])


class Answer(NamedTuple):
    """The status and JSON of a response, and whether it asks the client to send the call again."""

    status: int
    body: dict[str, Any]
    retry: bool

    @property
    def problem(self) -> str | None:
        """The slug of the problem; None for a success."""
        type_ = self.body.get("type")
        return None if type_ is None else str(type_).removeprefix("/problems/")


@dataclass(frozen=True)
class Server:
    """The spec and desired state of a server, sizes in GiB. `suspended` is the reason, if it is."""

    ram_gb: int
    disk_gb: int
    motd: str | None
    running: bool
    suspended: str | None = None

    @property
    def options(self) -> dict[str, str]:
        return {} if self.motd is None else {"motd": self.motd}

    @property
    def state(self) -> str:
        return "running" if self.running else "stopped"


class Walk(RuleBasedStateMachine):
    """Operations on three ids; each answer, and what the API shows after it, must match the model.

    A subclass implements `call` and gives `ids`: as many as SLOTS, which no other walk uses at the same time.
    """

    def __init__(self, ids: list[int]) -> None:
        super().__init__()
        self.ids = ids
        self.servers: dict[int, Server] = {}
        #: The sizes of the kept disks, in GiB.
        self.kept: dict[int, int] = {}
        #: The ids of the disks that have been used by a running game. Other disks are not kept.
        self.used: set[int] = set()
        #: The ids of the disks that were erased. Their claims may still be there for a while.
        self.erased: set[int] = set()
        self.disks: dict[int, str | None] = {}

    # -- what a subclass knows ----------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        """Call the API once."""
        raise NotImplementedError

    def disk(self, id: int) -> str | None:
        """The uid of a server's or kept disk's claim; None if there are no uids."""
        return None

    def disk_in_the_making(self, id: int) -> bool:
        """Whether a started server has no volume yet, so that a delete may or may not keep its disk."""
        return False

    def is_gone(self, id: int) -> bool:
        """Whether nothing is left of an erased server."""
        return self.call("GET", f"/api/v1/server/{id}/").status == 404

    # -- steps ---------------------------------------------------------------------------------------------

    @rule(
        slot=_SLOT, ram_gb=_GB, disk_gb=_GB, motd=_MOTD, start=st.booleans(),
        disk=st.sampled_from([None, "reuse", "erase"]),
    )  # fmt: skip
    def create(self, slot: int, ram_gb: int, disk_gb: int, motd: str | None, start: bool, disk: str | None) -> None:
        """A new server, the same again, a different one with the same id, and each way to meet a kept disk."""
        id, spec = self.ids[slot], Server(ram_gb, disk_gb, motd, start)
        body = {"ram_gb": ram_gb, "disk_gb": disk_gb, "options": spec.options, "start": start}
        answer = self.send("POST", id, "", body if disk is None else {**body, "disk": disk})
        server, kept_gb = self.servers.get(id), self.kept.get(id)
        if server is not None:
            same = replace(server, running=start, suspended=None) == spec
            assert (answer.status, answer.problem) == ((200, None) if same else (409, "server-exists"))
        elif kept_gb is not None and disk is None:
            assert (answer.status, answer.problem) == (409, "disk-kept")
        elif kept_gb is not None and disk == "reuse" and disk_gb != kept_gb:
            assert (answer.status, answer.problem) == (409, _cannot_resize(kept_gb, disk_gb))
        else:
            assert (answer.status, answer.body) == (201, {"success": True})
            self.servers[id] = spec
            if disk == "erase" or kept_gb is None:
                self.forget_disk(id)
            self.kept.pop(id, None)
            self.note_use(id)

    @rule(slot=_SLOT, verb=st.sampled_from(["start", "stop", "restart"]))
    def start_stop_or_restart(self, slot: int, verb: str) -> None:
        """Start, stop or restart a server that runs, a stopped one, or none. A restart starts a stopped server."""
        self.change(slot, verb, None, lambda server: replace(server, running=verb != "stop"))

    @rule(slot=_SLOT, reason=st.sampled_from(["Overdue.", "Abuse."]))
    def suspend(self, slot: int, reason: str) -> None:
        """A suspended server is stopped. The walker's token may still start it."""
        self.change(
            slot, "suspend", {"reason": reason}, lambda server: replace(server, running=False, suspended=reason)
        )

    @rule(slot=_SLOT)
    def unsuspend(self, slot: int) -> None:
        """It does not start again by that."""
        self.change(slot, "unsuspend", None, lambda server: replace(server, suspended=None))

    @precondition(lambda self: self.servers or self.kept)
    @rule(slot=_SLOT, ram_gb=_GB)
    def resize(self, slot: int, ram_gb: int) -> None:
        """More or less memory, for a server that runs or is stopped."""
        self.change(slot, "", {"ram_gb": ram_gb}, lambda server: replace(server, ram_gb=ram_gb))

    @precondition(lambda self: self.servers or self.kept)
    @rule(slot=_SLOT, motd=_MOTD)
    def change_options(self, slot: int, motd: str | None) -> None:
        """Set an option, or go back to its default."""
        self.change(slot, "", {"options": {"motd": motd}}, lambda server: replace(server, motd=motd))

    @precondition(lambda self: self.servers or self.kept)
    @rule(slot=_SLOT, disk_gb=_GB)
    def resize_disk(self, slot: int, disk_gb: int) -> None:
        """A node-local disk can neither shrink nor grow."""
        server = self.servers.get(self.ids[slot])
        if server is None or disk_gb == server.disk_gb:
            self.change(slot, "", {"disk_gb": disk_gb}, lambda server: server)
        else:
            answer = self.send("PATCH", self.ids[slot], "", {"disk_gb": disk_gb})
            assert (answer.status, answer.problem) == (409, _cannot_resize(server.disk_gb, disk_gb))

    @rule(slot=_SLOT)
    def resize_disk_to_nothing(self, slot: int) -> None:
        """The size is checked before the server is looked up."""
        answer = self.send("PATCH", self.ids[slot], "", {"disk_gb": 0})
        assert (answer.status, answer.problem) == (422, "invalid-request")

    @precondition(lambda self: self.servers or self.kept)
    @rule(slot=_SLOT, erase=st.booleans())
    def delete(self, slot: int, erase: bool) -> None:
        """A delete keeps the disk if a game has used it, and `disk=erase` erases it. It works on a kept disk, too."""
        id, query = self.ids[slot], "?disk=erase" if erase else ""
        if id not in self.servers and id not in self.kept:
            answer = self.call("DELETE", f"/api/v1/server/{id}/{query}")
            # While the pod of an erased server still ends, its claim is still there.
            assert (answer.status, answer.problem) == (404, "server-not-found") or (
                answer.status == 200 and id in self.erased
            ), answer
            return
        unclear = id in self.servers and id in self.used and not erase and self.disk_in_the_making(id)
        answer = self.send("DELETE", id, query)
        assert (answer.status, answer.body) == (200, {"success": True})
        server = self.servers.pop(id, None)
        keeps = id in self.kept_disks() if unclear else id in self.used and not erase
        if not keeps:
            self.kept.pop(id, None)
            self.forget_disk(id)
            self.erased.add(id)
        elif server is not None:
            self.kept[id] = server.disk_gb

    # -- what the API shows --------------------------------------------------------------------------------

    @invariant()
    def servers_match_the_model(self) -> None:
        for id in self.ids:
            answer = self.call("GET", f"/api/v1/server/{id}/")
            server = self.servers.get(id)
            if server is None:
                # A server whose game still ends is shown as deleting.
                assert answer.status == 404 or answer.body["state"] == "deleting", answer
                continue
            assert answer.status == 200, answer
            shown = {key: answer.body[key] for key in ("id", "game", "ram_gb", "disk_gb", "options", "wanted")}
            shown["suspended"] = answer.body["suspended"] and answer.body["suspended"]["reason"]
            assert shown == {
                "id": id,
                "game": "minecraft",
                "ram_gb": server.ram_gb,
                "disk_gb": server.disk_gb,
                "options": server.options,
                "wanted": server.state,
                "suspended": server.suspended,
            }
            assert answer.body["state"] != "failed", answer.body["reason"]

    @invariant()
    def kept_disks_match_the_model(self) -> None:
        assert self.kept_disks() == self.kept

    @invariant()
    def each_disk_stays_the_same_until_it_is_erased(self) -> None:
        for id in (*self.servers, *self.kept):
            disk = self.disk(id)
            assert self.disks.setdefault(id, disk) == disk

    def teardown(self) -> None:
        """Each server reaches its desired state. Then all are erased, and nothing is left of them."""
        try:
            for id in self.servers:
                self.reach_desired_state(id)
        finally:
            for id in self.ids:
                self.send("DELETE", id, "?disk=erase")
        for id in self.ids:
            self.end(id)

    # -- parts ---------------------------------------------------------------------------------------------

    def change(self, slot: int, path: str, body: Any, effect: Callable[[Server], Server]) -> None:
        """Send a PATCH that must succeed if the server exists, and apply its effect to the model."""
        id = self.ids[slot]
        answer = self.send("PATCH", id, path, body)
        server = self.servers.get(id)
        if server is None:
            assert (answer.status, answer.problem) == (404, "server-not-found")
            return
        assert (answer.status, answer.body["success"]) == (200, True), answer
        self.servers[id] = effect(server)
        self.note_use(id)

    def note_use(self, id: int) -> None:
        """A server that runs uses its disk."""
        if self.servers[id].running:
            self.used.add(id)

    def forget_disk(self, id: int) -> None:
        """The next disk of this id is a new one."""
        self.used.discard(id)
        self.disks.pop(id, None)

    def kept_disks(self) -> dict[int, int]:
        """The sizes of this walk's kept disks by id, as the API lists them."""
        answer = self.call("GET", "/api/v1/disk/")
        assert answer.status == 200, answer
        return {disk["id"]: disk["disk_gb"] for disk in answer.body["disks"] if disk["id"] in self.ids}

    def send(self, method: str, id: int, path: str, body: Any = None) -> Answer:
        """Call the API, again for as long as it asks for that. Raises AssertionError after PATIENCE_SECONDS."""
        answers: list[Answer] = []

        def settled() -> bool:
            answers.append(self.call(method, f"/api/v1/server/{id}/{path}", body))
            return not answers[-1].retry

        until(settled, PATIENCE_SECONDS, lambda: f"{method} {path}: {answers[-1]}")
        return answers[-1]

    def reach_desired_state(self, id: int) -> None:
        """Wait until a server is in its desired state."""
        state, shown = self.servers[id].state, Answer(0, {}, False)

        def reached() -> bool:
            nonlocal shown
            shown = self.call("GET", f"/api/v1/server/{id}/")
            return shown.body.get("state") == state

        until(reached, PATIENCE_SECONDS, lambda: f"server {id} is not {state}: {shown}")

    def end(self, id: int) -> None:
        """Wait until nothing is left of an erased server."""
        until(lambda: self.is_gone(id), PATIENCE_SECONDS, f"something of server {id} is left")


def _cannot_resize(now_gb: int, new_gb: int) -> str:
    """The problem of a new size for a disk that can neither shrink nor grow."""
    return "disk-cannot-shrink" if new_gb < now_gb else "disk-cannot-grow"
