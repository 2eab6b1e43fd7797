"""The JSON Schema of a game's options: read strictly, and sampled, so that a game's template can be tried.

JSON Schema lets every word pass that it does not know, so `minimun` would allow all; here it is a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from service.configfile import broken, dotted, json_of, nearest, text_of, unknown

# The words of https://json-schema.org/draft/2020-12 by what they hold.
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
_WORDS = sorted(_SCHEMA | _SCHEMAS | _SCHEMAS_BY_NAME | _PLAIN)


def read(path: Path) -> dict[str, Any]:
    """The schema in the file; raises StartupError naming the line of what is wrong with it."""
    schema = json_of(path, text_of(path))
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise broken(
            path, f"is no JSON Schema: {error.message} (at {error.json_path})", *error.absolute_path
        ) from error
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise broken(path, 'must have "type": "object"', "type")
    if schema.get("additionalProperties") is not False:
        raise broken(path, 'must have "additionalProperties": false', "additionalProperties")
    whole = Draft202012Validator(schema)
    for keys, part in _parts((), schema):
        for word in part:
            # Words of one's own, for a web shop say, are marked as such.
            if word not in _WORDS and not word.startswith("x-"):
                meant = nearest(word, _WORDS)
                hint = f"did you mean {meant}?" if meant else "words of your own begin with x-"
                raise broken(
                    path, f"{word} is no word of JSON Schema (at {dotted(keys) or 'the top'}); {hint}", *keys, word
                )
        for word in ("default", "examples"):
            values = part.get(word, []) if word == "examples" else [part[word]] if word in part else []
            for value in values:
                for wrong in whole.evolve(schema=part).iter_errors(value):
                    raise broken(
                        path,
                        f"{word}: does not fit: {wrong.message[:200]} (at {dotted(keys) or 'the top'})",
                        *keys,
                        word,
                    )
    for name in schema.get("required", []):
        if name not in schema.get("properties", {}):
            raise broken(path, f"required: {name} {unknown(name, schema.get('properties', {}))}", "required")
    return schema


def _parts(keys: tuple[str | int, ...], schema: Any) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    """The schema and all schemas within it, with the keys that lead there."""
    if not isinstance(schema, Mapping):
        return
    yield keys, schema
    for word, value in schema.items():
        if word in _SCHEMA:
            yield from _parts((*keys, word), value)
        elif word in _SCHEMAS:
            for number, part in enumerate(value):
                yield from _parts((*keys, word, number), part)
        elif word in _SCHEMAS_BY_NAME:
            for name, part in value.items():
                yield from _parts((*keys, word, name), part)


def samples(schema: Mapping[str, Any]) -> dict[str, list[Any]]:
    """For each option some values that fit: all that its schema names, and the ends of its range."""
    whole = Draft202012Validator(schema)
    return {name: _samples(whole, part) for name, part in (schema.get("properties") or {}).items()}


def _samples(whole: Any, schema: Any) -> list[Any]:
    if not isinstance(schema, Mapping):
        return ["x"]
    found = [schema[key] for key in ("default", "const") if key in schema]
    found += [value for key in ("enum", "examples") for value in schema.get(key, [])]
    if "enum" not in schema and "const" not in schema:
        kinds = schema.get("type", "string")
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            found += _ends(whole, kind, schema)
    return [value for value in found if whole.evolve(schema=schema).is_valid(value)] or found


def _ends(whole: Any, kind: str, schema: Mapping[str, Any]) -> list[Any]:
    if kind in ("integer", "number"):
        least = schema.get("minimum", 1)
        return [least, schema.get("maximum", least)]
    if kind == "array":
        return [_samples(whole, schema.get("items", {}))[:1], []]
    plain: dict[str, list[Any]] = {"boolean": [True, False], "object": [{}], "null": [None]}
    return plain.get(kind, ["x"])
