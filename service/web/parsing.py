"""Reading what a client sent: strictly, and naming what does not fit."""

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


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def parse_json(raw: bytes) -> Any:
    """The JSON in a body; raises MalformedBody. NaN and Infinity, which Python's parser knows, are no JSON."""
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"The body is not valid JSON: {str(error)[:200]}.") from error


def _flat(messages: Any, prefix: str = "") -> dict[str, list[str]]:
    """marshmallow's nested messages as one mapping from dotted fields."""
    if isinstance(messages, dict):
        flat: dict[str, list[str]] = {}
        for key, value in messages.items():
            # A client may invent long names; the answer need not repeat all of them.
            flat |= _flat(value, f"{prefix}.{key}"[:120] if prefix else str(key)[:120])
        return flat
    return {prefix or "body": [str(message) for message in (messages if isinstance(messages, list) else [messages])]}


# No environment variable holds NUL, no UTF-8 half a surrogate pair; and of the rest YAML has no room for, helm sends
# these as they are in what it applies, which the Kubernetes API reads as YAML and refuses as a whole.
_UNSTORABLE = re.compile("[\0\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def _unstorable(value: Any) -> bool:
    """Whether there is a character within that cannot come to the game's environment."""
    if isinstance(value, str):
        return _UNSTORABLE.search(value) is not None
    if isinstance(value, dict):
        return any(_unstorable(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_unstorable(part) for part in value)


class Parser(FlaskParser):
    """webargs' parser with the project's errors, and without its leniency."""

    def __init__(self) -> None:
        super().__init__()
        # Else an unknown part of a query, such as a misspelt `disk=erase`, would be passed over in silence.
        self.DEFAULT_UNKNOWN_BY_LOCATION = {**self.DEFAULT_UNKNOWN_BY_LOCATION, "query": ma.RAISE}

    def load_json(self, req: Request, schema: ma.Schema) -> Any:
        if req.mimetype != "application/json":
            raise UnsupportedMediaType()
        raw = req.get_data(cache=True)
        # Of a body without a length, werkzeug hands out the first part that is within the limit.
        if req.content_length is None and len(raw) >= (req.max_content_length or len(raw) + 1):
            raise BodyTooLarge()
        found = parse_json(raw)
        if not isinstance(found, dict):
            raise InvalidRequest("The body must be a JSON object.", errors={"body": ["must be an object"]})
        strange = {
            key[:120]: ["contains a character that cannot be stored"] for key in found if _unstorable({key: found[key]})
        }
        if strange:
            raise InvalidRequest(errors=_printable(strange))
        return found

    def handle_error(self, error: ma.ValidationError, *args: Any, **kwargs: Any) -> NoReturn:
        messages = error.messages
        # webargs puts the place (json, query) around them; the field says enough.
        inner = next(iter(messages.values())) if isinstance(messages, dict) and len(messages) == 1 else messages
        raise InvalidRequest(errors=_flat(inner))


def _printable(messages: dict[str, list[str]]) -> dict[str, list[str]]:
    return {key.encode("utf-8", "replace").decode().replace("\0", "?"): value for key, value in messages.items()}


if TYPE_CHECKING:
    # flask-smorest has no types; these are those of what is used of it.
    View = TypeVar("View", bound=Callable[..., Any])

    class Blueprint(flask.Blueprint):
        def __init__(
            self, name: str, import_name: str, *, url_prefix: str | None = None, description: str = ""
        ) -> None: ...
        def arguments(self, schema: type[ma.Schema], *, location: str = "json") -> Callable[[View], View]: ...
        def response(self, status_code: int, schema: type[ma.Schema]) -> Callable[[View], View]: ...
        def alt_response(
            self, status_code: int, *, schema: type[ma.Schema], description: str
        ) -> Callable[[View], View]: ...

else:

    class Blueprint(flask_smorest.Blueprint):
        """flask-smorest's blueprint, reading with our parser; only then is the server looked up that a call names."""

        ARGUMENTS_PARSER = Parser()

        def arguments(self, schema: type[ma.Schema], *, location: str = "json") -> Callable[[Any], Any]:
            parsed = super().arguments(schema, location=location)

            def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
                @functools.wraps(view)
                def settled(*args: Any, **kwargs: Any) -> Any:
                    flask.g.settle()
                    return view(*args, **kwargs)

                wrapper = parsed(settled)
                wrapper.parses = True
                return wrapper

            return decorate
