"""The fields that schemas are made of, stricter than marshmallow's own, and the two shapes that every answer has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import fields, validate


class Schema(ma.Schema):
    """Unknown fields are refused by name."""

    class Meta:
        unknown = ma.RAISE

    error_messages = {"unknown": "unknown field", "type": "must be an object"}  # noqa: RUF012


def _words(invalid: str) -> dict[str, str | list[Any] | dict[Any, Any]]:
    return {"required": "is required", "null": "must not be null", "invalid": invalid}


class WholeNumber(fields.Integer):
    """A JSON integer, and nothing that Python would take for one: not true, 1.0, "2" or NaN."""

    default_error_messages = _words("must be a whole number")

    def __init__(self, **more: Any) -> None:
        super().__init__(strict=True, **more)


class Flag(fields.Boolean):
    """A JSON boolean, not one of the many words that marshmallow takes for one."""

    default_error_messages = _words("must be true or false")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class Text(fields.String):
    default_error_messages = _words("must be a string")


class Options(fields.Raw):
    """A JSON object; the game's own schema judges what is in it."""

    default_error_messages = _words("must be an object")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        return value


class QueryNumber(fields.Integer):
    """A whole number in a query string, in ASCII digits."""

    default_error_messages = _words("must be a whole number")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", str(value)):
            raise self.make_error("invalid")
        return int(value)


def one_of(*words: str) -> validate.OneOf:
    """One of these words."""
    return validate.OneOf(words, error=f"must be {' or '.join(words)}")


class Success(Schema):
    success = fields.Constant(True, required=True, metadata={"type": "boolean", "enum": [True]})


class ProblemAnswer(Schema):
    success = fields.Constant(False, required=True, metadata={"type": "boolean", "enum": [False]})
    type = fields.String(required=True, metadata={"format": "uri-reference"})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))
