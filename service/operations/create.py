"""Create a server."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

from service.errors import (
    DiskBeingErased,
    DiskKept,
    DiskNotUsable,
    EulaNotAccepted,
    MissingScope,
    NoNodePortLeft,
    OperationInProgress,
    Problem,
    ReleaseMissing,
    ServerExists,
    ServerNotFound,
)
from service.kube.times import now
from service.kube.types import Object
from service.operations.checks import (
    check_growth,
    check_options,
    checked_values,
    keep_of,
    known_game,
    require_not_restoring,
    require_not_suspended,
)
from service.operations.context import Context, erase_disk
from service.operations.power import ensure_running
from service.operations.visibility import Target
from service.servers import values
from service.servers.accessors import deleted_at, is_bound
from service.servers.disks import claim_gb
from service.servers.objects import Objects
from service.servers.restored import is_taken_up, obstacle
from service.servers.spec import (
    ServerSpec,
    customer_of_claim,
    never_used,
    restoring_of_claim,
    spec_of_values,
    suspension_of_claim,
    uid_of_claim,
    uid_of_values,
)
from service.servers.state import exists
from service.tokens import Token

log = logging.getLogger(__name__)

# Kubernetes deletes a claim that no pod uses within this time. A claim in use stays until its pod has ended.
_ERASE_SECONDS = 3.0
_MAY_BE_LEFT_OUT = ("idle_stop_minutes", "backup_keep")


def create(context: Context, caller: Token, id: int, request: Mapping[str, Any]) -> bool:
    """Create the server, or leave it as it is if the same create has succeeded before.

    Args:
        context: The operation's collaborators.
        caller: The caller.
        id: The id of the new server.
        request: A loaded schemas.CreateServer.

    Returns:
        True if this call created the server, or completed a failed create; False if the server existed.

    Raises:
        ServerExists: A different server has this id.
        ServerNotFound: The server or the kept disk with this id is not the caller's.
        MissingScope: The token lacks `disk:erase`, or is confined to another customer.
        InvalidRequest: The game is unknown, or the options are not valid for it.
        EulaNotAccepted: The operator has not accepted the game's licence.
        DiskKept, DiskBeingErased, DiskCannotShrink, DiskCannotGrow, DiskNotUsable: There is a disk of an earlier server
            with this id, or one that a person restored.
        ReleaseMissing: The server exists, but someone has deleted its release.
        Suspended: The disk is that of a server that was suspended when it was deleted.
        OperationInProgress: The server exists, and its world is being restored; or a Service of an earlier server with
            this id is still being deleted.
    """
    spec, new = prepared(context, caller, id, request)
    with context.releases.locked(id):
        objects = context.cluster.server(id)
        if exists(objects):
            return _repeat(context, caller, objects, spec, new, request.keys())
        install(context, caller, objects, spec, new, request["disk"])
        return True


def prepared(context: Context, caller: Token, id: int, request: Mapping[str, Any]) -> tuple[ServerSpec, values.Values]:
    """The spec and the values of the new server, with a uid of its own; see `create` for what it raises."""
    if not caller.reaches(id):
        raise ServerNotFound()
    if request["disk"] == "erase":
        caller.require("disk:erase")
    game = known_game(context.games, request["game"])
    check_options(game, request["options"])
    spec = ServerSpec(
        game=game.name,
        ram_gb=request["ram_gb"],
        disk_gb=request["disk_gb"],
        options=request["options"],
        customer=_customer_of(caller, request["customer"]),
        rcon=request["rcon"],
        idle_stop_minutes=request.get("idle_stop_minutes", context.settings.idle_stop_default) or 0,
        backup_keep=keep_of(request.get("backup_keep")),
    )
    if game.eula and game.name not in context.settings.accepted_eulas:
        raise EulaNotAccepted(
            f"The operator has not accepted the licence of {game.title} ({game.eula}). To accept it, add "
            f"`{game.name}` to `acceptedEulas` in the values of the API's chart."
        )

    def render(options: Mapping[str, Any]) -> values.Values:
        own = game.render(id, replace(spec, options=options), new=True)
        return values.values_of(id, spec, own, context.operator_values)

    rendered = checked_values(context, game, spec.options, render)
    new = values.reachable(values.started(rendered, request["start"]), context.settings.external_host)
    return spec, values.with_uid(new, str(uuid.uuid4()))


def install(
    context: Context, caller: Token, objects: Objects, spec: ServerSpec, new: values.Values, disk: str | None
) -> None:
    """Install a server that does not exist; see `create` for what it raises. The calling thread must hold its Lease.

    Args:
        context, caller: As for `create`.
        objects: What there is under the id: perhaps a kept disk.
        spec, new: The new server, as `prepared` returns it.
        disk: What is to become of a kept disk.
    """
    id, before = objects.id, uid_of_claim(objects.claim or {})
    _require_no_remains(objects)
    reused = _settle_disk(context, caller, objects, spec, disk)
    if not reused and context.cluster.disk_is_awaited(id):
        # It is the deleted server's, whose world it would write to the new disk. The controller deletes it.
        raise DiskBeingErased
    # An operator may have removed an earlier server by hand. Its SFTP account must not reach this server's files.
    context.accounts.remove(id)
    try:
        context.releases.install(id, new)
    except NoNodePortLeft:
        _undo(context, id, reused)
        raise
    if reused and before is not None:
        # The disk is the new server's now, so no agent writes any for the earlier one, and nobody can read them.
        context.kept_logs.remove(before)


def _require_no_remains(objects: Objects) -> None:
    """Raises OperationInProgress while a Service of an earlier server with this id is still being deleted.

    A load balancer's controller keeps one until the load balancer is gone. Until then, an install would change what is
    about to go.
    """
    if remaining := sorted(name for name, service in objects.services.items() if deleted_at(service)):
        raise OperationInProgress(
            f"The Service {remaining[0]} of an earlier server with this id is still being deleted.", retry_after=5
        )


def _customer_of(caller: Token, requested: str | None) -> str:
    """The customer of the new server; raises MissingScope if the token is confined to another one."""
    if caller.customer is not None and requested not in (None, caller.customer):
        raise MissingScope(f"This token can only create servers for the customer {caller.customer}.")
    return caller.customer or requested or ""


def _repeat(
    context: Context, caller: Token, objects: Objects, spec: ServerSpec, new: values.Values, named: Set[str]
) -> bool:
    """Handle a create of a server that exists; returns whether this call completed an earlier, failed create."""
    current = context.releases.current(objects.id)
    if current is None:
        raise ReleaseMissing
    existing = spec_of_values(current)
    if not caller.may_see(existing.customer, objects.id):
        raise ServerNotFound()
    require_same(objects.id, existing, spec, named)
    require_not_restoring(existing)
    statuses = {release.get("labels", {}).get("status") for release in objects.releases}
    complete = bool(statuses & {"deployed", "superseded"})
    if complete and values.runs(current) and existing.suspended is None:
        ensure_running(context, caller, Target(objects.id, objects, existing), objects)
        return False
    # A stopped or suspended server stays so, but its missing objects are created again. A create that never completed
    # gets new values, because the operator may have fixed what blocked it.
    new = values.with_uid(new, uid_of_values(current) or new["server"]["uid"])
    stays = complete or existing.suspended is not None
    changed = context.releases.change(objects.id, lambda current: current if stays else new)
    return changed and not complete


def require_same(id: int, existing: ServerSpec, spec: ServerSpec, named: Set[str]) -> None:
    """Raises ServerExists, which names the fields, if the existing server differs from the one to create.

    What a request may leave out and does not name (`named`) is the operator's default, or was changed since.
    """
    spec = replace(spec, **{name: getattr(existing, name) for name in _MAY_BE_LEFT_OUT if name not in named})
    if different := existing.difference(spec):
        raise ServerExists(
            f"Server {id} already exists and differs in {', '.join(different)}. Change or delete it.",
            errors={field: ["differs from the existing server"] for field in different},
        )


def _undo(context: Context, id: int, reused: bool) -> None:
    """Remove what an install created before the node ports ran out, because it would hold the last of them.

    A reused disk stays. A disk that this install created is erased, so that the client can send the same create again.
    Its game may have run for a moment, but nobody has ever got its port.
    """
    try:
        context.releases.uninstall(id)
        # If this replica was frozen meanwhile, another one may have created the server, with this disk.
        if not reused and context.releases.current(id) is None:
            erase_disk(context, id)
    except Problem as problem:
        # The same create completes what remains, and a delete removes it.
        log.warning("could not undo the failed create of server %d: %s", id, problem.detail)


def _settle_disk(context: Context, caller: Token, objects: Objects, spec: ServerSpec, disk: str | None) -> bool:
    """Reuse or erase an existing disk, as the request says; returns whether the server reuses one."""
    claim = objects.claim
    if claim is None:
        return False
    if never_used(claim) or _clone_has_failed(context, claim):
        # The disk holds nothing, and has the size and storage class of a server that no longer exists.
        _erase_and_wait(context, objects.id, unless_used=never_used(claim))
        return False
    if not caller.may_see(customer_of_claim(claim), objects.id):
        raise ServerNotFound("The kept disk with this id belongs to another customer.")
    require_not_suspended(caller, suspension_of_claim(claim))
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
        _check_usable(context, claim, objects.id)
        check_growth(context, claim, claim_gb(claim), spec.disk_gb)
        context.cluster.reuse_disk(objects.id, now())
        return True
    if not is_taken_up(claim, objects.id):
        name, namespace = claim["metadata"]["name"], context.settings.servers_namespace
        raise DiskNotUsable(
            f"The API has not made the claim {name}, so it does not erase it. Delete it with "
            f'`kubectl -n {namespace} delete pvc {name}`, or send `"disk": "reuse"` to take it over.'
        )
    if (uid := uid_of_claim(claim)) is not None:
        context.kept_logs.remove(uid)
    _erase_and_wait(context, objects.id, unless_used=False)
    return False


def _clone_has_failed(context: Context, claim: Object) -> bool:
    """Whether the disk is what a clone that has failed has left: no game has ever run with it."""
    operation = restoring_of_claim(claim)
    clone = context.operations.get(operation) if operation else None
    return clone is not None and clone.action == "clone" and clone.state in ("failed", "cancelled")


def _check_usable(context: Context, claim: Object, id: int) -> None:
    """Raises DiskNotUsable, with what to do, if no server can use the claim. A person may have restored it."""
    named = claim.get("spec", {}).get("volumeName")
    volume = context.cluster.volume(named) if named and not is_bound(claim) else None
    if reason := obstacle(claim, volume, id, context.settings.servers_namespace):
        raise DiskNotUsable(reason)


def _erase_and_wait(context: Context, id: int, *, unless_used: bool) -> None:
    """Erase the disk; raises DiskBeingErased if its claim does not disappear in time."""
    erase_disk(context, id, unless_used=unless_used)
    deadline = time.monotonic() + _ERASE_SECONDS
    while context.cluster.server(id).claim is not None:
        if time.monotonic() > deadline:
            raise DiskBeingErased()
        time.sleep(0.2)
