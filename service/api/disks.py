"""The call that lists kept disks."""

from __future__ import annotations

from typing import Any

from service.api import schemas
from service.api.context import caller, context
from service.servers.disks import claim_gb, disk_of
from service.servers.names import ID, KEPT_SINCE
from service.servers.spec import customer_of_claim
from service.web.parsing import Blueprint
from service.web.routes import access

blueprint = Blueprint("disks", __name__, url_prefix="/api/v1/disk", description="Kept disks")


@blueprint.route("/", methods=["GET"])
@access("server:read")
@blueprint.response(200, schemas.DisksAnswer)
def list_disks() -> dict[str, Any]:
    """List the kept disks"""
    claims = [
        (int(claim["metadata"]["labels"][ID]), claim)
        for claim in context().cluster.kept_disks()
        # A disk that is being erased is not kept, even while it waits for the game's pod to end.
        if not claim["metadata"].get("deletionTimestamp")
    ]
    disks = [
        {
            "id": id,
            "disk_gb": claim_gb(claim),
            "disk": vars(disk_of(claim, context().cluster.usage(claim))),
            # If an operator uninstalled the server by hand, nothing recorded the time: use the disk's age instead.
            "since": claim["metadata"].get("annotations", {}).get(KEPT_SINCE)
            or claim["metadata"].get("creationTimestamp"),
        }
        for id, claim in claims
        if caller().may_see(customer_of_claim(claim), id)
    ]
    return {"success": True, "disks": sorted(disks, key=lambda disk: disk["id"])}
