"""The OpenAPI document: flask-smorest's document of the routes, completed with errors, limits and options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from service import errors
from service.games.catalogue import Game
from service.operations.bulk import SELECTORS
from service.operations.operation import ACTIONS, WHEN
from service.settings import Settings
from service.web.routes import Route

Document = dict[str, Any]

_BODY_PROBLEMS = (errors.MalformedBody, errors.BodyTooLarge, errors.UnsupportedMediaType, errors.InvalidRequest)
_TOKEN_PROBLEMS = (
    errors.Unauthorized,
    errors.MissingScope,
    errors.NotFound,
    errors.TooManyOperations,
    errors.ClusterUnavailable,
)


def complete(
    document: Mapping[str, Any], routes: Iterable[Route], settings: Settings, games: Mapping[str, Game]
) -> Document:
    """Complete flask-smorest's document.

    Args:
        document: The OpenAPI document as flask-smorest makes it.
        routes: All routes, with the scopes and problems that they declare.
        settings: For the limits of memory, disk sizes and idle stop.
        games: The games by name, for the schemas of their options.

    Returns:
        A copy with each operation's scope and errors, the operator's limits and the options of each game.
    """
    result = deepcopy(dict(document))
    for route in routes:
        path = re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", route.rule)
        for method in sorted(route.methods):
            operation = result["paths"].get(path, {}).get(method.lower())
            if operation is not None:
                _complete_operation(operation, route)
    schemas = result["components"]["schemas"]
    result["components"].pop("responses", None)
    schemas.pop("PaginationMetadata", None)
    schemas.pop("Error", None)
    for name in ("CreateServer", "UpdateServer"):
        for size in ("ram_gb", "disk_gb"):
            limits = {"minimum": getattr(settings, f"min_{size}"), "maximum": getattr(settings, f"max_{size}")}
            schemas[name]["properties"][size] = {"type": "integer", **limits, "description": "GiB"}
        minutes = {"type": "integer", "minimum": settings.idle_stop_min, "maximum": settings.idle_stop_max}
        schemas[name]["properties"]["idle_stop_minutes"]["anyOf"] = [{"enum": [0, None]}, minutes]
    _describe_backups(schemas, settings)
    _describe_options(schemas, games)
    _describe_bulk(schemas)
    _drop_defaults(result)
    return result


def _complete_operation(operation: Document, route: Route) -> None:
    """Add the scope and the error responses to `operation`, in place."""
    kinds: set[type[errors.Problem]] = {errors.Problem, *route.problems}
    if route.access.scope is None:
        operation["security"] = []
    else:
        kinds |= set(_TOKEN_PROBLEMS)
        operation["description"] = (
            f"{operation.get('description', '')}\n\nNeeds the scope `{route.access.scope}`.".strip()
        )
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
        kinds |= set(_BODY_PROBLEMS)
    operation["responses"] = {
        status: answer for status, answer in operation["responses"].items() if str(status)[0] == "2"
    }
    by_status: dict[int, list[type[errors.Problem]]] = {}
    for kind in sorted(kinds, key=lambda kind: kind.slug):
        by_status.setdefault(kind.status, []).append(kind)
    for status, kinds_of_status in sorted(by_status.items()):
        operation["responses"][str(status)] = _error_response(kinds_of_status)


def _error_response(kinds: list[type[errors.Problem]]) -> Document:
    """The response object for problems that share a status."""
    lines = [f"[{kind.slug}](/problems/{kind.slug}): {kind.title}." for kind in kinds]
    answer: Document = {
        "description": " ".join(lines),
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}},
    }
    headers: Document = {}
    if any(kind.default_retry_after for kind in kinds):
        headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds to wait before you try again."}
    if errors.Unauthorized in kinds:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    return {**answer, "headers": headers} if headers else answer


def _describe_options(schemas: Document, games: Mapping[str, Game]) -> None:
    """Give each game its own schema of a create's body, because the options depend on the game. Changes in place."""
    common = schemas.pop("CreateServer")
    bodies = []
    for game in games.values():
        title = "".join(part.capitalize() for part in game.name.split("-"))
        options = {key: value for key, value in game.schema.items() if key != "$schema"}
        schemas[f"{title}Options"] = options
        schemas[f"Create{title}Server"] = {
            **common,
            "properties": {
                **common["properties"],
                "game": {"type": "string", "enum": [game.name]},
                "options": {"$ref": f"#/components/schemas/{title}Options"},
            },
            # `game` is optional for Minecraft, because Minecraft is the default.
            "required": sorted({*common["required"], *(() if game.name == "minecraft" else ("game",))}),
        }
        bodies.append({"$ref": f"#/components/schemas/Create{title}Server"})
    schemas["CreateServer"] = {"anyOf": bodies}
    schemas["UpdateServer"]["properties"]["options"] |= {
        "type": "object",
        "anyOf": [_nullable(game.schema) for game in games.values()],
    }


def _describe_backups(schemas: Document, settings: Settings) -> None:
    """Give what a server keeps the operator's limit, and a new server one source of its world. Changes in place."""
    keep = schemas["BackupKeep"]
    for number in keep["properties"].values():
        number |= {"minimum": 0, "maximum": settings.backups_per_server}
    keep["anyOf"] = [{"required": [name], "properties": {name: {"minimum": 1}}} for name in keep["properties"]]
    schemas["WorldSource"] |= {"minProperties": 1, "maxProperties": 1}


def _describe_bulk(schemas: Document) -> None:
    """Say which fields of a call in bulk go together. Changes in place."""
    others = [action for action in ACTIONS if action != "suspend"]
    schemas["Bulk"]["allOf"] = [
        {"oneOf": [{"required": [name]} for name in SELECTORS]},
        {
            "oneOf": [
                {"properties": {"action": {"enum": ["suspend"]}}, "required": ["reason"]},
                {"properties": {"action": {"enum": others}}, "not": {"required": ["reason"]}},
            ]
        },
        {
            "anyOf": [
                {"properties": {"when": {"enum": [when]}, "action": {"enum": list(actions)}}}
                for when, actions in WHEN.items()
            ]
        },
    ]


def _drop_defaults(part: Any) -> None:
    """Drop each default of null where null is not allowed: there it only means that the field is absent. In place."""
    if isinstance(part, dict):
        if "type" in part and "null" not in part["type"] and part.get("default", ...) is None:
            del part["default"]
        for value in part.values():
            _drop_defaults(value)
    elif isinstance(part, list):
        for value in part:
            _drop_defaults(value)


def _nullable(schema: Mapping[str, Any]) -> Document:
    """The schema of a change of options: every option is optional and may be null."""
    properties = {name: {"anyOf": [part, {"type": "null"}]} for name, part in schema.get("properties", {}).items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}
