"""Reads the JSON Schema of a game's options strictly, and makes sample values from it to test the game's template.

JSON Schema ignores unknown keywords, so `minimun` would have no effect. Here it is a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonschema.exceptions import SchemaError
from referencing.exceptions import Unresolvable

from service.configfile import broken, dotted, json_of, nearest, text_of, unknown
from service.jsonschemas import Validator

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
    validator = Validator(schema)
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
        if part.get("enum") == []:
            raise broken(path, f"enum: names no value, so no value fits (at {place})", *keys, "enum")
        for keyword in ("default", "examples"):
            values = part.get(keyword, []) if keyword == "examples" else [part[keyword]] if keyword in part else []
            for value in values:
                for mismatch in validator.evolve(schema=part).iter_errors(value):
                    message = f"{keyword}: does not fit the schema: {mismatch.message[:200]} (at {place})"
                    raise broken(path, message, *keys, keyword)
    for name in schema.get("required", []):
        if name not in schema.get("properties", {}):
            raise broken(path, f"required: {name} {unknown(name, schema.get('properties', {}))}", "required")
    return schema


def _check_references(path: Path, schema: Mapping[str, Any], validator: Any) -> None:
    """A reference must lead to a part of the same file; to one elsewhere, the network would be asked."""
    for keys, part in _parts((), schema):
        for keyword in ("$ref", "$dynamicRef"):
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


def samples(schema: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Some valid values for each option: all that its schema names, and the limits of its range."""
    validator = Validator(schema)
    return {name: _option_samples(validator, part) for name, part in (schema.get("properties") or {}).items()}


def _option_samples(validator: Any, schema: Any) -> list[Any]:
    if not isinstance(schema, Mapping):
        return ["x"]
    values = [schema[key] for key in ("default", "const") if key in schema]
    values += [value for key in ("enum", "examples") for value in schema.get(key, [])]
    if "enum" not in schema and "const" not in schema:
        kinds = schema.get("type", "string")
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            values += _limits(validator, kind, schema)
    return [value for value in values if validator.evolve(schema=schema).is_valid(value)] or values


def _limits(validator: Any, kind: str, schema: Mapping[str, Any]) -> list[Any]:
    if kind in ("integer", "number"):
        minimum = schema.get("minimum", 1)
        return [minimum, schema.get("maximum", minimum)]
    if kind == "array":
        return [_option_samples(validator, schema.get("items", {}))[:1], []]
    plain: dict[str, list[Any]] = {"boolean": [True, False], "object": [{}], "null": [None]}
    return plain.get(kind, ["x"])
