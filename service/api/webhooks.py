"""The calls that make, change, list, try and delete webhooks."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify

from service import errors
from service.api import webhook_schemas as schemas
from service.api.context import caller, context, note
from service.operations import webhooks
from service.operations.webhooks import Shown
from service.web.fields import Success
from service.web.parsing import Blueprint
from service.web.routes import access, problems
from service.webhooks.deliveries import Try
from service.webhooks.records import Webhook

blueprint = Blueprint("webhooks", __name__, url_prefix="/api/v1", description="Webhooks")

_PROBLEMS = (errors.WebhooksNotKept, errors.ClusterContended, errors.OperationFailed)


@blueprint.route("/webhook/<webhook:name>", methods=["PUT"])
@access("webhook", audited=True)
@blueprint.arguments(schemas.PutWebhook)
@blueprint.response(201, schemas.CreatedAnswer)
@blueprint.alt_response(200, schema=schemas.PutAnswer, description="The webhook already existed; it is as asked for")
@problems(errors.WebhookNotFound, errors.TooManyWebhooks, *_PROBLEMS)
def put_webhook(body: dict[str, Any], name: str) -> Response:
    """Make or change a webhook

    Only the answer that makes it shows the secret. Events are sent from then on.
    """
    note(name=name)
    webhook, secret = webhooks.put(context(), caller(), name, body)
    fields = {"success": True, **_fields(webhook)}
    answer: Response = jsonify(fields if secret is None else {**fields, "secret": secret})
    answer.status_code = 200 if secret is None else 201
    return answer


@blueprint.route("/webhook", methods=["GET"])
@access("webhook")
@blueprint.response(200, schemas.WebhooksAnswer)
@problems(*_PROBLEMS)
def list_webhooks() -> dict[str, Any]:
    """List the webhooks"""
    return {"success": True, "webhooks": [_shown(one) for one in webhooks.list_(context(), caller())]}


@blueprint.route("/webhook/<webhook:name>", methods=["GET"])
@access("webhook")
@blueprint.response(200, schemas.WebhookAnswer)
@problems(errors.WebhookNotFound, *_PROBLEMS)
def get_webhook(name: str) -> dict[str, Any]:
    """Read a webhook"""
    return {"success": True, **_shown(webhooks.get(context(), caller(), name))}


@blueprint.route("/webhook/<webhook:name>", methods=["DELETE"])
@access("webhook", audited=True)
@blueprint.response(200, Success)
@problems(errors.WebhookNotFound, *_PROBLEMS)
def delete_webhook(name: str) -> dict[str, Any]:
    """Delete a webhook and its secret

    What waits for another try is not sent.
    """
    note(name=name)
    webhooks.delete(context(), caller(), name)
    return {"success": True}


@blueprint.route("/webhook/<webhook:name>/rotate", methods=["POST"])
@access("webhook", audited=True)
@blueprint.response(200, schemas.SecretAnswer)
@problems(errors.WebhookNotFound, *_PROBLEMS)
def rotate_webhook_secret(name: str) -> dict[str, Any]:
    """Give a webhook a new secret

    For 24 hours, deliveries are signed with the earlier secret too.
    """
    note(name=name)
    return {"success": True, "secret": webhooks.rotate(context(), caller(), name)}


@blueprint.route("/webhook/<webhook:name>/delivery", methods=["GET"])
@access("webhook")
@blueprint.response(200, schemas.DeliveriesAnswer)
@problems(errors.WebhookNotFound, *_PROBLEMS)
def list_deliveries(name: str) -> dict[str, Any]:
    """List the last 50 tries to deliver, the newest first

    A try appears here within seconds.
    """
    known = webhooks.get(context(), caller(), name).deliveries
    return {"success": True, "deliveries": [_delivery(one) for one in known.tries], "waiting": len(known.waiting)}


@blueprint.route("/webhook/<webhook:name>/test", methods=["POST"])
@access("webhook", audited=True)
@blueprint.response(202, schemas.TestAnswer)
@problems(errors.WebhookNotFound, *_PROBLEMS)
def test_webhook(name: str) -> dict[str, Any]:
    """Send a delivery of the type `test`, once

    How it went is among the deliveries, within seconds.
    """
    note(name=name)
    return {"success": True, "id": webhooks.test(context(), caller(), name)}


def _fields(webhook: Webhook) -> dict[str, Any]:
    """A webhook in the shape of schemas.Webhook. Its name is the one that the caller's calls have."""
    return {
        "name": webhook.name if caller().customer is not None else webhook.key,
        "owner": webhook.owner,
        "url": webhook.url,
        "types": None if webhook.types is None else list(webhook.types),
        "customer": webhook.customer,
        "server": webhook.server,
        "enabled": webhook.enabled,
        "created": webhook.created,
        "made_by": webhook.made_by,
    }


def _shown(shown: Shown) -> dict[str, Any]:
    known = {"state": shown.state, "reason": shown.reason, "waiting": len(shown.deliveries.waiting)}
    return {**_fields(shown.webhook), **known}


def _delivery(one: Try) -> dict[str, Any]:
    fields = ("id", "type", "server", "attempt", "time", "outcome", "status", "answer", "ms", "next")
    return {**{name: getattr(one, name) for name in fields}, "detail": one.detail or None}
