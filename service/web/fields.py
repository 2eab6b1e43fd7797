"""Schema fields that are stricter than marshmallow's own, and the schemas that all answers share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import fields, validate


class Schema(ma.Schema):
    """A schema that refuses unknown fields, and names them."""

    class Meta:
        unknown = ma.RAISE

    error_messages = {"unknown": "unknown field", "type": "must be an object"}  # noqa: RUF012


def _messages(invalid: str) -> dict[str, str | list[Any] | dict[Any, Any]]:
    """The error messages of a field, with `invalid` for a value of the wrong type."""
    return {"required": "is required", "null": "must not be null", "invalid": invalid}


class WholeNumber(fields.Integer):
    """A JSON integer. Refuses what Python would convert to one: true, 1.0, "2" and NaN."""

    default_error_messages = _messages("must be a whole number")

    def __init__(self, **more: Any) -> None:
        super().__init__(strict=True, **more)


class Flag(fields.Boolean):
    """A JSON boolean. Refuses the many strings and numbers that marshmallow converts to one."""

    default_error_messages = _messages("must be true or false")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class Text(fields.String):
    """A JSON string."""

    default_error_messages = _messages("must be a string")


class Options(fields.Raw):
    """A JSON object; the schema of the game validates its content."""

    default_error_messages = _messages("must be an object")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        return value


class QueryNumber(fields.Integer):
    """A whole number in a query string, in ASCII digits."""

    default_error_messages = _messages("must be a whole number")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", str(value)):
            raise self.make_error("invalid")
        return int(value)


class QueryFlag(fields.Boolean):
    """A boolean in a query string: `true` or `false`."""

    default_error_messages = _messages("must be true or false")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if value not in ("true", "false"):
            raise self.make_error("invalid")
        return bool(value == "true")


def one_of(*words: str) -> validate.OneOf:
    """A validator that accepts only these words."""
    return validate.OneOf(words, error=f"must be {' or '.join(words)}")


class Success(Schema):
    """The part that all successful answers share."""

    success = fields.Constant(True, required=True, metadata={"type": "boolean", "enum": [True]})


class ProblemAnswer(Schema):
    """The answer for an error, in RFC 9457's form."""

    success = fields.Constant(False, required=True, metadata={"type": "boolean", "enum": [False]})
    type = fields.String(required=True, metadata={"format": "uri-reference"})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))
