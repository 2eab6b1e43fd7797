"""A server's id in a path."""

from __future__ import annotations

from typing import Any

from werkzeug.routing import BaseConverter

from service.servers.names import LARGEST_ID


def _whole_numbers(largest: int) -> str:
    """A regular expression of the numbers from 1 to `largest`, in ASCII and without a leading zero."""
    digits = str(largest)
    shorter = f"[1-9][0-9]{{0,{len(digits) - 2}}}"
    # Of the same length: the same up to some digit, which is smaller, and then anything.
    smaller = [
        f"{digits[:at]}[{0 if at else 1}-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if int(digit) > (0 if at else 1)
    ]
    return f"(?:{'|'.join([*smaller, digits, shorter])})"


class ServerId(BaseConverter):
    """A server's id in a path: anything that is none is no address at all, so it answers 404.

    The range is in the expression, as an id that only `to_python` refused would answer 405 (werkzeug takes the
    routes of other methods for matches).
    """

    regex = _whole_numbers(LARGEST_ID)

    def to_python(self, value: str) -> int:
        return int(value)


def id_schema(converter: Any) -> dict[str, Any]:
    """What the OpenAPI document says of such a number."""
    return {"type": "integer", "format": "int64", "minimum": 1, "maximum": LARGEST_ID}
