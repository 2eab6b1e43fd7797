"""The schemas of requests and answers about webhooks."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from service.api.schemas import check_customer
from service.events.event import TYPES
from service.servers.names import LARGEST_ID
from service.tokens import CUSTOMER
from service.web.fields import Flag, Schema, Success, Text, WholeNumber, one_of
from service.webhooks.urls import LONGEST

STATES = ("ok", "failing", "disabled")
_LIST: dict[str, str | list[Any] | dict[Any, Any]] = {"invalid": "must be a list"}


class PutWebhook(Schema):
    url = Text(
        required=True,
        validate=validate.Length(1, LONGEST, error=f"must have from 1 to {LONGEST} characters"),
        metadata={"format": "uri", "description": "Where events are posted: `https`, and nowhere inside the cluster."},
    )
    types = fields.List(
        Text(validate=one_of(*TYPES)),
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, error="must not be empty"),
        error_messages=_LIST,
        metadata={"description": "The types of events to send; null for all."},
    )
    customer = Text(
        load_default=None,
        allow_none=True,
        validate=check_customer,
        metadata={"pattern": f"^{CUSTOMER.pattern}$", "description": "Only events about this customer's servers."},
    )
    server = WholeNumber(
        load_default=None,
        allow_none=True,
        validate=validate.Range(1, LARGEST_ID, error=f"must be from 1 to {LARGEST_ID}"),
        metadata={"format": "int64", "description": "Only events about the server with this id."},
    )
    enabled = Flag(load_default=True)


class Webhook(Schema):
    name = fields.String(required=True)
    owner = fields.String(
        required=True, allow_none=True, metadata={"description": "The customer whose own webhook it is."}
    )
    url = fields.String(required=True, metadata={"format": "uri"})
    types = fields.List(fields.String(), required=True, allow_none=True)
    customer = fields.String(required=True, allow_none=True)
    server = fields.Integer(required=True, allow_none=True)
    enabled = fields.Boolean(required=True)
    created = fields.String(required=True)
    made_by = fields.String(required=True, metadata={"description": "The name of the token that made it."})


class PutAnswer(Webhook, Success):
    pass


class CreatedAnswer(PutAnswer):
    secret = fields.String(required=True, metadata={"description": "Signs the deliveries. Shown only once."})


class KnownWebhook(Webhook):
    state = fields.String(required=True, validate=one_of(*STATES))
    reason = fields.String(required=True, allow_none=True)
    waiting = fields.Integer(required=True, metadata={"description": "How many events wait for another try."})


class WebhookAnswer(KnownWebhook, Success):
    pass


class WebhooksAnswer(Success):
    webhooks = fields.List(fields.Nested(KnownWebhook), required=True)


class SecretAnswer(Success):
    secret = fields.String(required=True, metadata={"description": "The new one. Shown only once."})


class TestAnswer(Success):
    id = fields.String(required=True, metadata={"description": "The `id` of the test among the deliveries."})


class Delivery(Schema):
    id = fields.String(required=True, metadata={"description": "The event's id, as in the header `webhook-id`."})
    type = fields.String(required=True)
    server = fields.Integer(required=True, allow_none=True)
    attempt = fields.Integer(required=True, metadata={"description": "1 for the first try of this event."})
    time = fields.String(required=True)
    outcome = fields.String(required=True, metadata={"description": "`delivered`, or how it failed."})
    status = fields.Integer(required=True, allow_none=True)
    detail = fields.String(required=True, allow_none=True, metadata={"description": "Why it failed."})
    answer = fields.String(required=True, metadata={"description": "The first 200 characters of the answer."})
    ms = fields.Integer(required=True)
    next = fields.String(
        required=True, allow_none=True, metadata={"description": "When the next try is due; null if there is none."}
    )


class DeliveriesAnswer(Success):
    deliveries = fields.List(fields.Nested(Delivery), required=True)
    waiting = fields.Integer(required=True, metadata={"description": "How many events wait for another try."})
