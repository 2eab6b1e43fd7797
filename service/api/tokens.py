"""The calls that issue, list and revoke tokens, and those for login links."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request, url_for

from service import errors
from service.api import token_schemas as schemas
from service.api.context import caller, context, note
from service.kube.times import stamp
from service.operations import tokens
from service.tokenstore.records import Issued
from service.web.fields import Success
from service.web.parsing import Blueprint
from service.web.routes import access, problems

blueprint = Blueprint("tokens", __name__, url_prefix="/api/v1", description="Tokens")

_PROBLEMS = (errors.TokensNotKept, errors.ClusterContended, errors.OperationFailed)


@blueprint.route("/token", methods=["POST"])
@access("token", audited=True)
@blueprint.arguments(schemas.CreateToken)
@blueprint.response(201, schemas.TokenAnswer)
@problems(errors.TokenExists, errors.TooManyTokens, *_PROBLEMS)
def create_token(body: dict[str, Any]) -> dict[str, Any]:
    """Issue a token that may do no more than your own

    Only this answer shows the token. It works on every replica within 5 seconds.
    """
    issued, secret = tokens.create(context(), caller(), body)
    note(name=issued.token.name)
    return {"success": True, "token": secret, **_token_fields(issued)}


@blueprint.route("/token", methods=["GET"])
@access("token")
@blueprint.response(200, schemas.TokensAnswer)
@problems(*_PROBLEMS)
def list_tokens() -> dict[str, Any]:
    """List the issued tokens that your own token could have issued

    The operator's tokens are not among them.
    """
    entries = [
        {
            **_token_fields(issued),
            "created": issued.created,
            "made_by": issued.made_by,
            "last_used": issued.last_used,
        }
        for issued in tokens.list_issued(context(), caller())
    ]
    return {"success": True, "tokens": entries}


@blueprint.route("/token/<name>", methods=["DELETE"])
@access("token", audited=True)
@blueprint.response(200, Success)
@problems(errors.TokenNotFound, *_PROBLEMS)
def delete_token(name: str) -> dict[str, Any]:
    """Revoke a token and the login links that it made

    Within 5 seconds, no replica accepts the token any more. Tokens that it issued stay valid.
    """
    tokens.revoke(context(), caller(), name)
    note(name=name)
    return {"success": True}


@blueprint.route("/login-link", methods=["POST"])
@access("token", audited=True)
@blueprint.arguments(schemas.CreateLoginLink)
@blueprint.response(201, schemas.LoginLinkAnswer)
@problems(errors.TooManyTokens, *_PROBLEMS)
def create_login_link(body: dict[str, Any]) -> dict[str, Any]:
    """Make a login link, which gives out a token for a customer once"""
    code, expires = tokens.create_login_link(context(), caller(), body)
    note(customer=body["customer"])
    return {"success": True, "link": url_for("tokens.open_login_link", code=code), "expires": stamp(expires)}


@blueprint.route("/login/<code>", methods=["GET"])
@access(None, audited=True)
@blueprint.response(200, schemas.TokenAnswer)
@problems(errors.NotFound, errors.LoginLinkGone, errors.ClusterUnavailable, *_PROBLEMS)
def open_login_link(code: str) -> Response:
    """Open a login link: get a token for its customer, valid for 12 hours

    After that, the link no longer works.
    """
    # A HEAD request, which only checks that the link exists, must not use it up.
    if request.method != "GET":
        raise errors.MethodNotAllowed(headers={"Allow": "GET"})
    issued, secret = tokens.open_login_link(context(), code)
    note(name=issued.token.name, made_by=issued.made_by)
    answer: Response = jsonify({"success": True, "token": secret, **_token_fields(issued)})
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


def _token_fields(issued: Issued) -> dict[str, Any]:
    """A token in the shape of schemas.Grant, without its secret."""
    token = issued.token
    return {
        "name": token.name,
        "scopes": sorted(token.scopes),
        "customer": token.customer,
        "servers": None if token.servers is None else sorted(token.servers),
        "expires": None if token.expires is None else stamp(token.expires),
    }
