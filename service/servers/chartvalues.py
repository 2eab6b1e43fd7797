"""What the chart gameserver takes for values: its own schema says so, and its own defaults lie beneath.

The API's helm would find the same mistakes, but only at each create, where nobody can mend them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from service.configfile import has, json_of, nearest, text_of, unknown, yaml_of
from service.servers.values import deep_merge

Path_ = tuple[str | int, ...]

# What the API writes into each server's values itself: set anywhere else it would be lost without a word.
_OWN: dict[Path_, str] = {
    ("game",): "comes from each create",
    ("server",): "comes from each create",
    ("ramGb",): "comes from each create, as `ram_gb`",
    ("diskGb",): "comes from each create, as `disk_gb`",
    ("rcon", "visibility"): "comes from each create, as `rcon`",
    ("replicas",): "comes from each start and stop",
    ("restartedAt",): "comes from each restart",
    ("keepPodInRevision",): "comes from each change",
    ("global",): "is read by nothing here",
}
_KINDS = {
    "object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number", "number": "a number",
    "boolean": "true or false", "null": "nothing",
}  # fmt: skip


@dataclass(frozen=True)
class Mistake:
    """What is wrong with values, and where: the first of `paths`, or one of the others that clash with it."""

    paths: tuple[Path_, ...]
    message: str


class ChartValues:
    """The values that a chart takes."""

    def __init__(self, folder: Path) -> None:
        """Read the chart in `folder`; raises StartupError where it cannot be used."""
        self._defaults: Mapping[str, Any] = yaml_of(folder / "values.yaml", text_of(folder / "values.yaml"))
        schema = folder / "values.schema.json"
        self._validator = _Validator(json_of(schema, text_of(schema)))

    def mistakes(self, values: Mapping[str, Any]) -> list[Mistake]:
        """All that the chart's schema would refuse of `values`, or that the API overwrites; empty for nothing."""
        own = [Mistake((path,), f"{why}, and cannot be set here") for path, why in _OWN.items() if has(values, path)]
        return own + self.refused(values)

    def refused(self, values: Mapping[str, Any]) -> list[Mistake]:
        """All that the chart's schema would refuse of `values`; empty for nothing."""
        # What is not touched is the chart's own, and in order.
        below = {key: self._defaults[key] for key in values if key in self._defaults}
        # An unknown name first: what is missing is often what it was meant to be.
        errors = sorted(
            self._validator.iter_errors(deep_merge(below, values)),
            key=lambda error: error.validator != "additionalProperties",
        )
        return [mistake for error in errors for mistake in _said(error)]

    def clashes(self, values: Mapping[str, Any]) -> list[Mistake]:
        """All that the chart's templates or Kubernetes would refuse of `values`, where the schema has no complaint."""
        merged = deep_merge(self._defaults, values)
        return [mistake for clash in (_ports, _variables, _volumes, _limits) for mistake in clash(merged)]


# -- the schema's complaints, in words ---------------------------------------------------------------------


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Any:
    # Python's `$` also matches before a last newline; that of JSON Schema, and of helm, does not.
    exact = re.sub(r"(?<!\\)\$(?=$|\))", r"\\Z", pattern)
    if isinstance(instance, str) and not re.search(exact, instance):
        yield ValidationError(f"does not match {pattern}")


_Validator: Any = extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]


def _said(error: ValidationError) -> Iterator[Mistake]:
    path, schema = tuple(error.absolute_path), error.schema if isinstance(error.schema, Mapping) else {}
    if error.validator in ("anyOf", "oneOf") and error.context:
        # The last of them is the one that is meant; those before it are ways to leave the value out.
        yield from _said(error.context[-1])
    elif error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = list(schema.get("properties", {}))
        for name in error.instance:
            if name not in known:
                yield Mistake(((*path, name),), _unknown(path, str(name), known))
    elif "propertyNames" in error.absolute_schema_path:
        yield Mistake(((*path, str(error.instance)),), f"is no name that can stand here: {_complaint(error, schema)}")
    else:
        yield Mistake((path,), _complaint(error, schema))


def _unknown(path: Path_, name: str, known: list[str]) -> str:
    meant = nearest(name, known)
    own = _OWN.get((*path, meant)) if meant else None
    if own:
        return f"is unknown; did you mean `{meant}`? That {own}, and cannot be set here"
    return unknown(name, [one for one in known if (*path, one) not in _OWN])


def _complaint(error: ValidationError, schema: Mapping[str, Any]) -> str:
    wanted: Any = error.validator_value
    if error.validator == "type":
        kinds = wanted if isinstance(wanted, list) else [wanted]
        hint = ": write it in quotes" if kinds == ["string"] and isinstance(error.instance, bool | int | float) else ""
        return f"must be {' or '.join(_KINDS[kind] for kind in kinds)}, not {_kind(error.instance)}{hint}"
    if error.validator == "enum":
        return f"must be one of {', '.join(str(choice) or 'an empty text' for choice in wanted)}"
    if error.validator == "required":
        return error.message.replace("'", "`").replace("is a required property", "is missing")
    if error.validator == "contains":
        return "has no port named primary"
    said = [part["description"] for part in (wanted, schema) if isinstance(part, Mapping) and "description" in part]
    if said and error.validator == "not":
        return str(said[0])
    if said and error.validator in ("pattern", "maxLength"):
        return f"must be {said[0]}"
    return error.message[:200]


def _kind(instance: Any) -> str:
    for kind, name in ((bool, "boolean"), (Mapping, "object"), (list, "array"), (str, "string"), (int, "integer")):
        if isinstance(instance, kind):
            return _KINDS[name]
    if instance is None:
        return _KINDS["null"]
    return "a number with a fraction" if isinstance(instance, float) else "a date"


# -- what a schema cannot say ------------------------------------------------------------------------------


def _ports(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """As the chart's `gameserver.ports` says it."""
    seen: set[tuple[str, object]] = set()
    for number, port in enumerate(values["ports"]):
        both = port["protocol"] == "both"
        names = (port["name"], f"{port['name']}-udp") if both else (port["name"],)
        protocols = ("TCP", "UDP") if both else (port["protocol"],)
        taken = {("", name) for name in names} | {(protocol, port["port"]) for protocol in protocols}
        if taken & seen:
            yield Mistake((("ports", number),), "has the name, or the port and protocol, of another port")
        seen |= taken
    rcon = values["rcon"]
    if rcon["enabled"] and ("TCP", rcon["port"]) in seen:
        what = f"makes {rcon['port']}/TCP a port of the game and of the remote console (`rcon.enabled`, `rcon.port`)"
        yield Mistake((("rcon", "port"), ("rcon", "enabled"), ("ports",)), what)


def _variables(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """As the chart's `gameserver.environment` says it."""
    yield from _twice("extraEnv", [variable["name"] for variable in values["extraEnv"]])


def _volumes(values: Mapping[str, Any]) -> Iterator[Mistake]:
    names = [volume["name"] for volume in values["extraVolumes"]]
    yield from _twice("extraVolumes", names)
    mounts = values["extraVolumeMounts"]
    for number, mount in enumerate(mounts):
        if mount["name"] not in names:
            what = f"names no volume of `extraVolumes`: {mount['name']} {unknown(mount['name'], names)}"
            yield Mistake((("extraVolumeMounts", number, "name"), ("extraVolumes",)), what)
    # The chart's own two come first.
    paths = [values["storage"]["mountPath"], "/run/gameserver/rcon", *(mount["mountPath"] for mount in mounts)]
    for number, path in enumerate(paths[2:]):
        if path in paths[: number + 2]:
            yield Mistake((("extraVolumeMounts", number, "mountPath"),), f"has {path}, where something else is mounted")


def _limits(values: Mapping[str, Any]) -> Iterator[Mistake]:
    for key in ("cpu", "ephemeralStorage"):
        request, limit = values[key]["request"], values[key]["limit"]
        if request and limit and _size(request) > _size(limit):
            what = f"asks for {request} and allows {limit}: the limit must not be smaller than the request"
            yield Mistake(((key, "limit"), (key, "request")), what)


def _twice(key: str, names: list[str]) -> Iterator[Mistake]:
    for number, name in enumerate(names):
        if name in names[:number]:
            yield Mistake(((key, number),), f"has {name} a second time")


def _size(text: str) -> float:
    """A quantity as the schema lets it pass: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""
    units = {"m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    number, unit = re.fullmatch(r"([0-9.]+)(.*)", text).groups()  # type: ignore[union-attr]
    return float(number) * units.get(unit, 1)
