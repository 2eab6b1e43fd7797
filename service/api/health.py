"""Health checks: whether the process is up, and whether the cluster answers.

These are two calls on purpose: Kubernetes' probes use only the first. While the cluster is away, a replica that answers
503 is more useful than one that Kubernetes restarts or takes out of the Service.
"""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request

from service import errors
from service.api import schemas
from service.api.context import context
from service.web.draining import draining
from service.web.fields import Success
from service.web.parsing import Blueprint
from service.web.routes import problems, public

blueprint = Blueprint("health", __name__, description="The API itself")


@blueprint.route("/healthcheck", methods=["GET"])
@public
@blueprint.response(200, schemas.Alive)
@problems(errors.Draining)
def healthcheck() -> Response:
    """Check that the API is up and accepts requests, without asking the cluster

    When this replica begins to shut down, only Kubernetes' own probes get 503.
    """
    # Clients with an open connection still get their answer, as for every other call.
    if draining.is_set() and request.user_agent.string.startswith("kube-probe/"):
        raise errors.Draining()
    return jsonify(alive=True)


@blueprint.route("/readyz", methods=["GET"])
@public
@blueprint.response(200, Success)
@problems(errors.Draining, errors.ClusterUnavailable)
def readyz() -> dict[str, Any]:
    """Check that the cluster answers; for people and monitors"""
    if draining.is_set():
        raise errors.Draining()
    if not context().cluster.ready():
        raise errors.ClusterUnavailable()
    return {"success": True}
