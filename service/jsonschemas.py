"""A validator for JSON Schema that answers as other languages' do, where Python's jsonschema differs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

# An escaped character, a class of characters, or `$`.
_DOLLAR = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\$", re.DOTALL)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    # Python's `$` also matches before a final newline, and its `\d` and `\w` match other alphabets; those of JSON
    # Schema (ECMA 262) and of helm do not.
    exact = _DOLLAR.sub(lambda match: r"\Z" if match[0] == "$" else match[0], pattern)
    if isinstance(instance, str) and not re.search(exact, instance, re.ASCII):
        yield ValidationError(f"does not match {pattern}")


def _multiple_of(validator: Any, factor: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    # As decimal numbers: of the binary ones that Python reads, 0.3 is no multiple of 0.1.
    if validator.is_type(instance, "number") and Fraction(str(instance)) % Fraction(str(factor)):
        yield ValidationError(f"{instance} is not a multiple of {factor}")


Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"pattern": _pattern, "multipleOf": _multiple_of}
)

# Those that jsonschema can check by itself. Others need packages that may be installed for something else.
FORMATS = FormatChecker(["date", "email", "idn-email", "ipv4", "ipv6", "regex", "uuid"])
