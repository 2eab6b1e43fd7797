"""Is the process up, and does the cluster answer?

Two questions on purpose: Kubernetes' probes ask only the first. A replica that answers 503 while the cluster
is away is of more use than one that is restarted, or taken out of the Service, over it.
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
    """Check that the API is up and accepts requests; the cluster is not asked

    When this replica begins to shut down, only Kubernetes' own probes get 503.
    """
    # A client whose connection is from before still gets its answer, as to every other call.
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
