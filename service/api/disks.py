"""Kept disks: what outlived its server."""

from __future__ import annotations

from typing import Any

from service.api import schemas
from service.operations.context import caller, context
from service.operations.create import claim_gb
from service.servers.names import ID, KEPT_SINCE
from service.servers.spec import customer_of_claim
from service.web.auth import needs
from service.web.parsing import Blueprint

blueprint = Blueprint("disks", __name__, url_prefix="/api/v1/disk", description="Disks that outlived their server")


@blueprint.route("/", methods=["GET"])
@needs("read")
@blueprint.response(200, schemas.DisksAnswer)
def list_disks() -> dict[str, Any]:
    """The kept disks: id, size, since when"""
    claims = [
        claim
        for claim in context().cluster.kept_disks()
        # One that is being erased is not kept, though it may have to wait for the game's pod to end.
        if not claim["metadata"].get("deletionTimestamp") and caller().may_see(customer_of_claim(claim))
    ]
    disks = [
        {
            "id": int(claim["metadata"]["labels"][ID]),
            "disk_gb": claim_gb(claim),
            # Of a server that a hand has uninstalled, nobody wrote down the time: the disk's own age is left.
            "since": claim["metadata"].get("annotations", {}).get(KEPT_SINCE)
            or claim["metadata"].get("creationTimestamp"),
        }
        for claim in claims
    ]
    return {"success": True, "disks": sorted(disks, key=lambda disk: disk["id"])}
