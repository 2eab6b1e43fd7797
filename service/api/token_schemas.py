"""The schemas of requests and answers about tokens and login links."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from service.api.schemas import check_customer
from service.servers.names import LARGEST_ID
from service.tokenformat import looks_like_token
from service.tokens import CUSTOMER, CUSTOMER_WORDS, SCOPES
from service.web.fields import Schema, Success, Text, WholeNumber, one_of

MOST_SERVERS = 20
_PATTERN = f"^{CUSTOMER.pattern}$"
_LONGEST_S = 10 * 366 * 24 * 3600
_LIST: dict[str, str | list[Any] | dict[Any, Any]] = {
    "null": "must not be null",
    "invalid": "must be a list",
    "required": "is required",
}


def _check_name(value: str) -> None:
    # Names are logged, and no token may get into a log.
    if not CUSTOMER.fullmatch(value) or looks_like_token(value):
        raise ma.ValidationError(f"must be {CUSTOMER_WORDS}, and must not look like a token")


def _range(smallest: int, largest: int) -> validate.Range:
    return validate.Range(smallest, largest, error=f"must be from {smallest} to {largest}")


def _scopes(**more: Any) -> fields.List[str]:
    return fields.List(
        Text(validate=one_of(*SCOPES)),
        validate=validate.Length(min=1, error="must not be empty"),
        error_messages=_LIST,
        **more,
    )


def _servers() -> fields.List[int]:
    return fields.List(
        WholeNumber(validate=_range(1, LARGEST_ID)),
        load_default=None,
        validate=validate.Length(1, MOST_SERVERS, error=f"must have from 1 to {MOST_SERVERS} ids"),
        error_messages=_LIST,
        metadata={"description": "The only servers that the token reaches. Absent: all that your own token reaches."},
    )


class CreateToken(Schema):
    name = Text(required=True, validate=_check_name, metadata={"pattern": _PATTERN})
    scopes = _scopes(required=True)
    customer = Text(load_default=None, validate=check_customer, metadata={"pattern": _PATTERN})
    servers = _servers()
    expires_in_s = WholeNumber(
        load_default=None,
        validate=_range(1, _LONGEST_S),
        metadata={"description": "Absent: the token lasts as long as your own."},
    )


class CreateLoginLink(Schema):
    customer = Text(required=True, validate=check_customer, metadata={"pattern": _PATTERN})
    servers = _servers()
    scopes = _scopes(
        load_default=None, metadata={"description": "Absent: `read` and `operate`, without what your own token lacks."}
    )
    minutes = WholeNumber(
        required=True, validate=_range(1, 60), metadata={"description": "How long the link can be opened."}
    )


class Grant(Schema):
    name = fields.String(required=True)
    scopes = fields.List(fields.String(), required=True)
    customer = fields.String(required=True, allow_none=True)
    servers = fields.List(fields.Integer(), required=True, allow_none=True)
    expires = fields.String(required=True, allow_none=True)


class TokenAnswer(Grant, Success):
    token = fields.String(required=True, metadata={"description": "Shown only once."})


class IssuedToken(Grant):
    created = fields.String(required=True)
    made_by = fields.String(required=True, metadata={"description": "The name of the token that issued this one."})
    last_used = fields.String(required=True, allow_none=True, metadata={"description": "Rounded down to the hour."})


class TokensAnswer(Success):
    tokens = fields.List(fields.Nested(IssuedToken), required=True)


class LoginLinkAnswer(Success):
    link = fields.String(
        required=True, metadata={"format": "uri-reference", "description": "Append it to the API's address."}
    )
    expires = fields.String(required=True)
