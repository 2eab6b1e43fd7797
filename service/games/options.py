"""Reads the JSON Schema of a game's options strictly, and makes sample values from it to test the game's template.

JSON Schema ignores unknown keywords, so `minimun` would have no effect. Here it is a mistake.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from service.configfile import broken, dotted, json_of, nearest, text_of, unknown
from service.jsonschemas import FORMATS, Validator

# The keywords of https://json-schema.org/draft/2020-12, by the type of their values.
_SCHEMA = {
    "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then", "unevaluatedItems",
    "unevaluatedProperties",
}  # fmt: skip
_SCHEMAS = {"allOf", "anyOf", "oneOf", "prefixItems"}
_SCHEMAS_BY_NAME = {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
_PLAIN = {
    "$anchor", "$comment", "$dynamicAnchor", "$dynamicRef", "$id", "$ref", "$schema", "const", "default",
    "dependentRequired", "deprecated", "description", "enum", "examples", "exclusiveMaximum", "exclusiveMinimum",
    "format", "maxContains", "maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems",
    "minLength", "minProperties", "minimum", "multipleOf", "pattern", "readOnly", "required", "title", "type",
    "uniqueItems", "writeOnly", "contentEncoding", "contentMediaType", "contentSchema",
}  # fmt: skip
_RANGES = [
    ("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"),
]  # fmt: skip
# https://json-schema.org/draft/2020-12/json-schema-validation#section-7.3
_FORMATS = {
    "date", "date-time", "duration", "email", "hostname", "idn-email", "idn-hostname", "ipv4", "ipv6", "iri",
    "iri-reference", "json-pointer", "regex", "relative-json-pointer", "time", "uri", "uri-reference", "uri-template",
    "uuid",
}  # fmt: skip
# The kind of value that a schema without `type` is about.
_KINDS = {
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"},
    "object": {"properties", "required", "patternProperties", "minProperties", "maxProperties"},
    "string": {"pattern", "minLength", "maxLength", "format"},
}
_REFERENCES = ("$ref", "$dynamicRef")
_ALTERNATIVES = ("allOf", "anyOf", "oneOf")
# Texts to try with a pattern, a length or a format.
_TEXTS = [letter * length for length in (*range(1, 9), 12, 16, 24, 32, 64) for letter in "xX1aA0"] + [
    "1.0", "1.0.0", "192.0.2.1", "2001:db8::1", "a.example.com", "a@example.com", "https://example.com/", "2026-01-01",
    "12:00", "2026-01-01T12:00:00Z", "00000000-0000-4000-8000-000000000000", "#00ff00", "en-US", "Europe/Berlin",
]  # fmt: skip
# The most schemas in each other that samples are made for.
_DEEPEST = 6
_MOST_ITEMS = 1000
_KEYWORDS = sorted(_SCHEMA | _SCHEMAS | _SCHEMAS_BY_NAME | _PLAIN)


def read(path: Path) -> dict[str, Any]:
    """Read the schema in a file. Raises StartupError, which names the line of the first mistake."""
    schema = json_of(path, text_of(path))
    try:
        return _checked(path, schema)
    except RecursionError as error:
        raise broken(path, "nests too deeply, or a $ref leads to itself", "$ref") from error


def _checked(path: Path, schema: Any) -> dict[str, Any]:
    try:
        Validator.check_schema(schema)
    except SchemaError as error:
        raise broken(
            path, f"is not a JSON Schema: {error.message} (at {error.json_path})", *error.absolute_path
        ) from error
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise broken(path, 'must have "type": "object"', "type")
    if schema.get("additionalProperties") is not False:
        raise broken(path, 'must have "additionalProperties": false', "additionalProperties")
    validator = Validator(schema, format_checker=FORMATS)
    _check_references(path, schema, validator)
    for keys, part in _parts((), schema):
        place = dotted(keys) or "the top"
        for keyword in part:
            # Custom keywords, for example for a shop, are marked with x-.
            if keyword not in _KEYWORDS and not keyword.startswith("x-"):
                suggestion = nearest(keyword, _KEYWORDS)
                hint = f"did you mean {suggestion}?" if suggestion else "custom keywords must begin with x-"
                raise broken(path, f"{keyword} is not a keyword of JSON Schema (at {place}); {hint}", *keys, keyword)
        for low, high in _RANGES:
            if low in part and high in part and part[low] > part[high]:
                raise broken(path, f"{low} is above {high}, so no value fits (at {place})", *keys, low)
        _check_format(path, keys, part)
        if part.get("enum") == []:
            raise broken(path, f"enum: names no value, so no value fits (at {place})", *keys, "enum")
        for keyword in ("default", "examples"):
            values = part.get(keyword, []) if keyword == "examples" else [part[keyword]] if keyword in part else []
            for value in values:
                for mismatch in validator.evolve(schema=part).iter_errors(value):
                    message = f"{keyword}: does not fit the schema: {mismatch.message[:200]} (at {place})"
                    raise broken(path, message, *keys, keyword)
    for name, value in defaults(schema).items():
        for mismatch in validator.evolve(schema=schema["properties"][name]).iter_errors(value):
            message = f"default: does not fit the schema: {mismatch.message[:200]} (at properties.{name})"
            raise broken(path, message, "properties", name)
    for name in schema.get("required", []):
        if name not in schema.get("properties", {}):
            raise broken(path, f"required: {name} {unknown(name, schema.get('properties', {}))}", "required")
    return schema


def _check_format(path: Path, keys: tuple[str | int, ...], part: Mapping[str, Any]) -> None:
    """A misspelt format would have no effect. Others, such as `password`, are hints for a form."""
    if (name := part.get("format")) is None or name in _FORMATS:
        return
    if close := difflib.get_close_matches(name.lower(), _FORMATS, n=1, cutoff=0.8):
        message = (
            f"format: {name} is not a format of JSON Schema (at {dotted(keys) or 'the top'}); did you mean {close[0]}?"
        )
        raise broken(path, message, *keys, "format")


def _check_references(path: Path, schema: Mapping[str, Any], validator: Any) -> None:
    """A reference must lead to a part of the same file; to one elsewhere, the network would be asked."""
    for keys, part in _parts((), schema):
        for keyword in _REFERENCES:
            reference = part.get(keyword, "#")
            hint = f"(at {dotted(keys) or 'the top'}); a reference must lead to a part of this file, such as #/$defs/a"
            if not reference.startswith("#"):
                raise broken(path, f"{keyword}: {reference} is in another file {hint}", *keys, keyword)
            try:
                validator.evolve(schema={keyword: reference}).is_valid(None)
            except Unresolvable as error:
                raise broken(path, f"{keyword}: {reference} leads to nothing {hint}", *keys, keyword) from error


def _parts(keys: tuple[str | int, ...], schema: Any) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    """Yield the schema and all schemas in it, each with its keys."""
    if not isinstance(schema, Mapping):
        return
    yield keys, schema
    for keyword, value in schema.items():
        if keyword in _SCHEMA:
            yield from _parts((*keys, keyword), value)
        elif keyword in _SCHEMAS:
            for number, part in enumerate(value):
                yield from _parts((*keys, keyword, number), part)
        elif keyword in _SCHEMAS_BY_NAME:
            for name, part in value.items():
                yield from _parts((*keys, keyword, name), part)


def defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The default of each option that has one: beside its other keywords, or where its `$ref` leads."""
    references, found = _References(schema), {}
    for name, part in (schema.get("properties") or {}).items():
        seen: set[str] = set()
        while isinstance(part, Mapping) and "default" not in part and part.get("$ref", "") not in {"", *seen}:
            seen.add(part["$ref"])
            part = references.target(part["$ref"])
        if isinstance(part, Mapping) and "default" in part:
            found[name] = part["default"]
    return found


def samples(schema: Mapping[str, Any]) -> tuple[dict[str, list[Any]], set[str]]:
    """Some valid values for each option: all that its schema names, and the ends of its range.

    Where none is found, as for a pattern without `examples`, the value is a guess. The names of these options come
    second.
    """
    sampler = _Sampler(schema)
    values, guessed = {}, set()
    for name, part in (schema.get("properties") or {}).items():
        values[name] = sampler.samples(part)
        if not sampler.fits(part, values[name][0]):
            guessed.add(name)
    return values, guessed


class _References:
    """Follows the references of a schema, which `read` has checked."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._resolver: Any = None

    def target(self, reference: str) -> Any:
        """What it leads to; nothing, as an empty schema, for one in a part with an `$id` of its own."""
        if self._resolver is None:
            resource = DRAFT202012.create_resource(self._schema)
            self._resolver = Registry().with_resource("", resource).resolver()
        try:
            return self._resolver.lookup(reference).contents
        except Unresolvable:
            return {}


class _Sampler:
    """Makes values that fit a part of a schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._validator = Validator(schema, format_checker=FORMATS)
        self._references = _References(schema)

    def fits(self, schema: Any, value: Any) -> bool:
        return bool(self._validator.evolve(schema=schema).is_valid(value))

    def samples(self, schema: Any, depth: int = 0) -> list[Any]:
        """Valid values if any are found, or else one that may not be."""
        # Each once; 1, 1.0 and true are equal, but not the same.
        candidates = list({json.dumps(value): value for value in self._candidates(schema, depth)}.values())
        texts = (text for text in _TEXTS + _long_texts(schema) if self.fits(schema, text))
        valid = [value for value in candidates if self.fits(schema, value)] or [*texts][:1]
        return valid or candidates[:1] or ["x"]

    def _candidates(self, schema: Any, depth: int) -> Iterator[Any]:
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return
        yield from (schema[key] for key in ("default", "const") if key in schema)
        yield from (value for key in ("enum", "examples") for value in schema.get(key, []))
        for keyword in _REFERENCES:
            if keyword in schema:
                yield from self._candidates(self._references.target(schema[keyword]), depth + 1)
        for part in (part for keyword in _ALTERNATIVES for part in schema.get(keyword, [])):
            yield from self._candidates(part, depth + 1)
        if "enum" not in schema and "const" not in schema:
            for kind in _kinds(schema):
                yield from self._of_kind(kind, schema, depth)

    def _of_kind(self, kind: str, schema: Mapping[str, Any], depth: int) -> list[Any]:
        if kind in ("integer", "number"):
            return _numbers(kind, schema)
        if kind == "array":
            items = self.samples(schema.get("items", True), depth + 1)
            least = min(schema.get("minItems", 1), _MOST_ITEMS)
            first = [self.samples(part, depth + 1)[0] for part in schema.get("prefixItems", [])]
            return [items[:1], [], items[:least], [*first, *items * least][: max(least, len(first))]]
        if kind == "object":
            properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
            required = schema.get("required", [])
            return [{}, {name: self.samples(properties.get(name, more), depth + 1)[0] for name in required}]
        plain: dict[str, list[Any]] = {"boolean": [True, False], "null": [None]}
        return plain.get(kind, ["x"])


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    if "type" in schema:
        return schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    elsewhere = any(keyword in schema for keyword in (*_REFERENCES, *_ALTERNATIVES))
    about = [kind for kind, keywords in _KINDS.items() if keywords & schema.keys()]
    return about or ([] if elsewhere else ["string"])


def _numbers(kind: str, schema: Mapping[str, Any]) -> list[Any]:
    """The ends of the range; 1 for its beginning if the schema names none."""
    step = schema.get("multipleOf", 1)
    rounded = kind == "integer" or "multipleOf" in schema
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    ends = [step] if least is None and above is None else []
    if least is not None:
        ends.append(-(-least // step) * step if rounded else least)
    if above is not None:
        ends.append((above // step + 1) * step)
    if most is not None:
        ends.append(most // step * step if rounded else most)
    if below is not None:
        ends.append((-(-below // step) - 1) * step)
    if kind == "integer":
        return [int(end) for end in ends]
    return ends if above is None or below is None else [*ends, (above + below) / 2]


def _long_texts(schema: Any) -> list[str]:
    least = min(schema.get("minLength", 0), 10_000) if isinstance(schema, Mapping) else 0
    return [letter * least for letter in "x1"]
