"""Create: the one operation that has to ask before it writes."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

from service.errors import (
    DiskBeingErased,
    DiskKept,
    EulaNotAccepted,
    MissingScope,
    NoNodePortLeft,
    Problem,
    ReleaseMissing,
    ServerExists,
    ServerNotFound,
)
from service.kube.times import now
from service.operations.checks import check_growth, check_options, known_game
from service.operations.context import Context, erase_disk
from service.operations.power import ensure_running
from service.servers import values
from service.servers.disks import claim_gb
from service.servers.objects import Objects
from service.servers.spec import ServerSpec, customer_of_claim, never_used, spec_of_values, uid_of_values
from service.servers.state import exists
from service.tokens import Token

log = logging.getLogger(__name__)

# A claim that no pod uses is gone within this time; one that is still in use takes as long as the pod.
_ERASE_SECONDS = 3.0


def create(context: Context, token: Token, id: int, request: Mapping[str, Any]) -> bool:
    """Make the server, or find that it is there already: True if it was made now.

    `request` is a loaded schemas.CreateServer. Raises ServerExists where another server has the id, and one of
    the disk problems where an earlier server's disk has to be decided upon.
    """
    if not token.reaches(id):
        raise ServerNotFound()
    if request["disk"] == "erase":
        token.require("disk:erase")
    game = known_game(context.games, request["game"])
    check_options(game, request["options"])
    spec = ServerSpec(
        game=game.name,
        ram_gb=request["ram_gb"],
        disk_gb=request["disk_gb"],
        options=request["options"],
        customer=_customer(token, request["customer"]),
        rcon=request["rcon"],
    )
    if game.eula and game.name not in context.settings.accepted_eulas:
        raise EulaNotAccepted(
            f"The operator has not accepted the licence of {game.title} ({game.eula}). To accept it, add "
            f"`{game.name}` to `acceptedEulas` in the values of the API's chart."
        )
    made = values.values_of(id, spec, game.render(id, spec, new=True), context.operator_values)
    wanted = values.reachable(values.started(made, request["start"]), context.settings.external_host)
    wanted = values.with_uid(wanted, str(uuid.uuid4()))
    with context.releases.locked(id):
        objects = context.cluster.server(id)
        if exists(objects):
            return _again(context, token, objects, spec, wanted)
        reused = _settle_disk(context, token, objects, spec, request["disk"])
        # A hand may have removed the server of before; whoever had its files does not get this one's.
        context.accounts.remove(id)
        try:
            context.releases.install(id, wanted)
        except NoNodePortLeft:
            _take_back(context, id, reused)
            raise
        return True


def _customer(token: Token, given: str | None) -> str:
    if token.customer is not None and given not in (None, token.customer):
        raise MissingScope(f"This token can only create servers for the customer {token.customer}.")
    return token.customer or given or ""


def _again(context: Context, token: Token, objects: Objects, spec: ServerSpec, wanted: values.Values) -> bool:
    current = context.releases.current(objects.id)
    if current is None:
        raise ReleaseMissing
    there = spec_of_values(current)
    if not token.may_see(there.customer, objects.id):
        raise ServerNotFound()
    if different := there.difference(spec):
        raise ServerExists(
            f"Server {objects.id} already exists and differs in {', '.join(different)}. Change or delete it.",
            errors={field: ["differs from the existing server"] for field in different},
        )
    statuses = {release.get("labels", {}).get("status") for release in objects.releases}
    once_whole = bool(statuses & {"deployed", "superseded"})
    if once_whole and values.runs(current):
        ensure_running(context, objects)
        return False
    # A stopped one stays so; what is missing of it is made again. A create that never came to its end is made anew, as
    # the operator may have mended what was in its way.
    anew = values.with_uid(wanted, uid_of_values(current) or wanted["server"]["uid"])
    finished = context.releases.change(objects.id, lambda current: current if once_whole else anew)
    return finished and not once_whole


def _take_back(context: Context, id: int, reused: bool) -> None:
    """Remove what the install made before the node ports ran out: a half server would hold the last of them.

    A disk that was there before stays. One that this very install has made goes, so that the same create can be sent
    again: its game may have run for a moment, but nobody was ever given its port.
    """
    try:
        context.releases.uninstall(id)
        # A replica that froze meanwhile may find that another has made the server, over this disk.
        if not reused and context.releases.current(id) is None:
            erase_disk(context, id)
    except Problem as problem:
        # The same create goes on from what is left, and a delete removes it.
        log.warning("could not undo the failed create of server %d: %s", id, problem.detail)


def _settle_disk(context: Context, token: Token, objects: Objects, spec: ServerSpec, disk: str | None) -> bool:
    """Whether the server is made over a disk that is there already."""
    claim = objects.claim
    if claim is None:
        return False
    if never_used(claim):
        # Nothing was kept, and this one's size and class are those of a server that is no more.
        _erase(context, objects.id, unless_used=True)
        return False
    if not token.may_see(customer_of_claim(claim), objects.id):
        raise ServerNotFound("The kept disk with this id belongs to another customer.")
    if claim["metadata"].get("deletionTimestamp"):
        raise DiskBeingErased()
    if disk is None:
        raise DiskKept(errors={"disk": ["must be reuse or erase: there is a kept disk with this id"]})
    if disk == "reuse":
        if (owner := customer_of_claim(claim)) and owner != spec.customer:
            raise DiskKept(
                "The kept disk with this id belongs to another customer. Only a server of that customer can reuse it.",
                errors={"disk": ["must be erase: the disk belongs to another customer"]},
            )
        check_growth(context, claim, claim_gb(claim), spec.disk_gb)
        context.cluster.reuse_disk(objects.id, now())
        return True
    _erase(context, objects.id, unless_used=False)
    return False


def _erase(context: Context, id: int, *, unless_used: bool) -> None:
    erase_disk(context, id, unless_used=unless_used)
    deadline = time.monotonic() + _ERASE_SECONDS
    while context.cluster.server(id).claim is not None:
        if time.monotonic() > deadline:
            raise DiskBeingErased()
        time.sleep(0.2)
