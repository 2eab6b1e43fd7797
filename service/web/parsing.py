"""Strict parsing of bodies and queries; errors name the field that is wrong."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import flask
import flask_smorest  # type: ignore[import-untyped]
import marshmallow as ma
from flask import Request
from webargs.flaskparser import FlaskParser

from service.errors import BodyTooLarge, InvalidRequest, MalformedBody, UnsupportedMediaType


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse_float(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def parse_json(raw: bytes) -> Any:
    """The JSON in a body; raises MalformedBody. Refuses NaN and Infinity, which Python's parser accepts."""
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_parse_float)
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"The body is not valid JSON: {str(error)[:200]}.") from error


def _flatten(messages: Any, prefix: str = "") -> dict[str, list[str]]:
    """marshmallow's nested messages as one mapping from a dotted field to its messages."""
    if isinstance(messages, dict):
        flat: dict[str, list[str]] = {}
        for key, value in messages.items():
            # A client may send very long names; the answer need not repeat them in full.
            flat |= _flatten(value, f"{prefix}.{key}"[:120] if prefix else str(key)[:120])
        return flat
    return {prefix or "body": [str(message) for message in (messages if isinstance(messages, list) else [messages])]}


# An environment variable cannot hold NUL, and UTF-8 cannot encode half a surrogate pair. The other characters here are
# not allowed in YAML, but helm sends them unescaped, so the Kubernetes API, which parses YAML, would refuse everything.
_UNSTORABLE = re.compile("[\0\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def _has_unstorable(value: Any) -> bool:
    """Whether `value` contains a character that cannot be stored in a game's environment."""
    if isinstance(value, str):
        return _UNSTORABLE.search(value) is not None
    if isinstance(value, dict):
        return any(_has_unstorable(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_has_unstorable(part) for part in value)


class Parser(FlaskParser):
    """webargs' parser, made strict and with this project's errors."""

    def __init__(self) -> None:
        super().__init__()
        # Otherwise an unknown parameter, such as a misspelt `disk=erase`, would be silently ignored.
        self.DEFAULT_UNKNOWN_BY_LOCATION = {**self.DEFAULT_UNKNOWN_BY_LOCATION, "query": ma.RAISE}

    def load_json(self, req: Request, schema: ma.Schema) -> Any:
        if req.mimetype != "application/json":
            raise UnsupportedMediaType()
        raw = req.get_data(cache=True)
        # If a body has no length, werkzeug returns its first part, up to the limit.
        if req.content_length is None and len(raw) >= (req.max_content_length or len(raw) + 1):
            raise BodyTooLarge()
        body = parse_json(raw)
        if not isinstance(body, dict):
            raise InvalidRequest("The body must be a JSON object.", errors={"body": ["must be an object"]})
        messages = {
            key[:120]: ["contains a character that cannot be stored"]
            for key in body
            if _has_unstorable({key: body[key]})
        }
        if messages:
            raise InvalidRequest(errors=_printable(messages))
        return body

    def handle_error(self, error: ma.ValidationError, *args: Any, **kwargs: Any) -> NoReturn:
        messages = error.messages
        # webargs wraps the messages in the location (json, query), which the answer does not need.
        inner = next(iter(messages.values())) if isinstance(messages, dict) and len(messages) == 1 else messages
        raise InvalidRequest(errors=_flatten(inner))


def _printable(messages: dict[str, list[str]]) -> dict[str, list[str]]:
    """The messages, with `?` for each character in a field's name that JSON cannot carry."""
    return {key.encode("utf-8", "replace").decode().replace("\0", "?"): value for key, value in messages.items()}


if TYPE_CHECKING:
    # flask-smorest has no type hints; these cover what this project uses of it.
    View = TypeVar("View", bound=Callable[..., Any])

    class Blueprint(flask.Blueprint):
        def __init__(
            self, name: str, import_name: str, *, url_prefix: str | None = None, description: str = ""
        ) -> None: ...
        def arguments(self, schema: type[ma.Schema], *, location: str = "json") -> Callable[[View], View]: ...
        def response(
            self, status_code: int, schema: type[ma.Schema] | dict[str, str], *, content_type: str | None = None
        ) -> Callable[[View], View]: ...
        def alt_response(
            self, status_code: int, *, schema: type[ma.Schema] | None = None, description: str
        ) -> Callable[[View], View]: ...
        @staticmethod
        def doc(**more: Any) -> Callable[[View], View]: ...

else:

    class Blueprint(flask_smorest.Blueprint):
        """flask-smorest's blueprint with our parser. The server is looked up only after the request has been parsed."""

        ARGUMENTS_PARSER = Parser()

        def arguments(self, schema: type[ma.Schema], *, location: str = "json") -> Callable[[Any], Any]:
            parsed = super().arguments(schema, location=location)

            def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
                @functools.wraps(view)
                def view_with_target(*args: Any, **kwargs: Any) -> Any:
                    flask.g.find_target()
                    return view(*args, **kwargs)

                wrapper = parsed(view_with_target)
                wrapper.parses = True
                return wrapper

            return decorate
