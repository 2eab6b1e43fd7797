"""Checks values against the chart gameserver: its schema, its defaults, and what its templates refuse.

helm would find the same mistakes, but only at each create, when it is too late to fix them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema.exceptions import ValidationError

from service.configfile import has, json_of, nearest, text_of, unknown, yaml_of
from service.jsonschemas import Validator
from service.servers.values import deep_merge

ValuePath = tuple[str | int, ...]

# Values that the API itself sets for each server. If they were set anywhere else, they would be overwritten silently.
_OWN: dict[ValuePath, str] = {
    ("game",): "comes from each create",
    ("server",): "comes from each create",
    ("ramGb",): "comes from each create, as `ram_gb`",
    ("diskGb",): "comes from each create, as `disk_gb`",
    ("rcon", "visibility"): "comes from each create, as `rcon`",
    ("replicas",): "comes from each start and stop",
    ("restartedAt",): "comes from each restart",
    ("keepPodInRevision",): "comes from each change",
    ("schedules",): "comes from the calls that set schedules",
    ("storage", "dataSource"): "comes from each create",
    ("storage", "deferred"): "comes from each create",
    ("global",): "has no effect here",
}
_LONGEST_VARIABLE = 128 * 1024
_MOST_ANNOTATIONS = 128 * 1024
# The least seconds that a game needs to save, and the same with 5 s before Kubernetes kills it.
_SHORTEST_SAVE = 10
_SHORTEST_STOP = _SHORTEST_SAVE + 5
# As Minecraft's image reads it: it appends `s` and takes the whole for a duration of Go, so `1m30` are 90 seconds too.
_SECONDS = re.compile(r"(?:([0-9]{1,5})h)?(?:([0-9]{1,5})m)?([0-9]{1,9}(?:\.[0-9]*)?)")
_WHOLE = re.compile(r"0|-[0-9]{1,99}|[1-9][0-9]{0,99}")
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_KINDS = {
    "object": "a mapping", "array": "a list", "string": "a string", "integer": "a whole number", "number": "a number",
    "boolean": "true or false", "null": "nothing",
}  # fmt: skip


@dataclass(frozen=True)
class Mistake:
    """A mistake in values.

    Attributes:
        paths: Where it is: the first path, or one of the others that conflict with it.
        message: What is wrong there.
    """

    paths: tuple[ValuePath, ...]
    message: str


class ChartValues:
    """Checks values for one chart."""

    def __init__(self, folder: Path) -> None:
        """Read the chart in `folder`. Raises StartupError if it cannot be used."""
        self._defaults: Mapping[str, Any] = yaml_of(folder / "values.yaml", text_of(folder / "values.yaml"))
        schema = folder / "values.schema.json"
        self._validator = Validator(json_of(schema, text_of(schema)))

    def mistakes(self, values: Mapping[str, Any]) -> list[Mistake]:
        """Everything in `values` that the chart's schema refuses or that the API overwrites."""
        overwritten = [
            Mistake((path,), f"{source}, and cannot be set here") for path, source in _OWN.items() if has(values, path)
        ]
        return overwritten + self.refused(values)

    def refused(self, values: Mapping[str, Any]) -> list[Mistake]:
        """Everything in `values` that the chart's schema refuses."""
        # Unchanged values are the chart's own, and valid.
        defaults = {key: self._defaults[key] for key in values if key in self._defaults}
        # Unknown names first: a missing value is often a misspelt one.
        errors = sorted(
            self._validator.iter_errors(deep_merge(defaults, values)),
            key=lambda error: error.validator != "additionalProperties",
        )
        return [mistake for error in errors for mistake in _schema_mistakes(error)]

    def clashes(self, values: Mapping[str, Any]) -> list[Mistake]:
        """Everything that the chart's templates or Kubernetes refuse in `values`, if `mistakes` finds nothing."""
        merged = deep_merge(self._defaults, values)
        return [mistake for check in _CHECKS for mistake in check(merged)]


# -- errors of the schema -----------------------------------------------------------------------------------


def _schema_mistakes(error: ValidationError) -> Iterator[Mistake]:
    path, schema = tuple(error.absolute_path), error.schema if isinstance(error.schema, Mapping) else {}
    if error.validator in ("anyOf", "oneOf") and error.context:
        # The last alternative describes the value; those before it allow leaving it out.
        yield from _schema_mistakes(error.context[-1])
    elif error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = list(schema.get("properties", {}))
        for name in error.instance:
            if name not in known:
                yield Mistake(((*path, name),), _unknown(path, str(name), known))
    elif "propertyNames" in error.absolute_schema_path:
        yield Mistake(((*path, str(error.instance)),), f"is not an allowed name: {_message(error, schema)}")
    else:
        yield Mistake((path,), _message(error, schema))


def _unknown(path: ValuePath, name: str, known: list[str]) -> str:
    suggestion = nearest(name, known)
    source = _OWN.get((*path, suggestion)) if suggestion else None
    if source:
        return f"is unknown; did you mean `{suggestion}`? That {source}, and cannot be set here"
    return unknown(name, [candidate for candidate in known if (*path, candidate) not in _OWN])


def _message(error: ValidationError, schema: Mapping[str, Any]) -> str:
    expected: Any = error.validator_value
    if error.validator == "type":
        kinds = expected if isinstance(expected, list) else [expected]
        hint = ": write it in quotes" if kinds == ["string"] and isinstance(error.instance, bool | int | float) else ""
        return f"must be {' or '.join(_KINDS[kind] for kind in kinds)}, not {_kind(error.instance)}{hint}"
    if error.validator == "enum":
        return f"must be one of {', '.join(str(choice) or 'an empty string' for choice in expected)}"
    if error.validator == "required":
        return error.message.replace("'", "`").replace("is a required property", "is missing")
    if error.validator == "contains":
        return "has no port named primary"
    descriptions = [
        part["description"] for part in (expected, schema) if isinstance(part, Mapping) and "description" in part
    ]
    if descriptions and error.validator == "not":
        return str(descriptions[0])
    if descriptions and error.validator in ("pattern", "maxLength", "maxItems", "const"):
        return f"must be {descriptions[0]}"
    return error.message[:200]


def _kind(instance: Any) -> str:
    for kind, name in ((bool, "boolean"), (Mapping, "object"), (list, "array"), (str, "string"), (int, "integer")):
        if isinstance(instance, kind):
            return _KINDS[name]
    if instance is None:
        return _KINDS["null"]
    return "a number with a fraction" if isinstance(instance, float) else "a date"


# -- checks beyond the schema ------------------------------------------------------------------------------


def _ports(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """The same check as in the chart's template `gameserver.ports`."""
    seen: set[tuple[str, object]] = set()
    for number, port in enumerate(values["ports"]):
        both = port["protocol"] == "both"
        names = (port["name"], f"{port['name']}-udp") if both else (port["name"],)
        protocols = ("TCP", "UDP") if both else (port["protocol"],)
        used = {("", name) for name in names} | {(protocol, port["port"]) for protocol in protocols}
        if used & seen:
            yield Mistake((("ports", number),), "has the name, or the port and protocol, of another port")
        seen |= used
    rcon = values["rcon"]
    if rcon["enabled"] and ("TCP", rcon["port"]) in seen:
        message = f"uses {rcon['port']}/TCP for both the game and the remote console (`rcon.enabled`, `rcon.port`)"
        yield Mistake((("rcon", "port"), ("rcon", "enabled"), ("ports",)), message)
    if rcon["enabled"]:
        seen.add(("TCP", rcon["port"]))
    econ = values["econ"]
    if econ["enabled"] and {("TCP", econ["port"]), ("", "econ")} & seen:
        message = f"uses {econ['port']}/TCP or the name econ for another port (`econ.enabled`, `econ.port`)"
        yield Mistake((("econ", "port"), ("econ", "enabled"), ("ports",)), message)


def _variables(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """The same check as in the chart's template `gameserver.environment`, and Linux's limit for one variable.

    https://man7.org/linux/man-pages/man2/execve.2.html ("Limits on size of arguments and environment")
    """
    yield from _duplicates("extraEnv", [variable["name"] for variable in values["extraEnv"]])
    texts: list[tuple[ValuePath, str, str]] = [
        (("environment", name), name, text) for name, text in values["environment"].items()
    ]
    texts += [
        (("extraEnv", number, "value"), variable["name"], variable["value"])
        for number, variable in enumerate(values["extraEnv"])
        if "value" in variable
    ]
    for path, name, text in texts:
        if len(f"{name}={text}".encode()) >= _LONGEST_VARIABLE:
            yield Mistake((path,), f"is longer than {_LONGEST_VARIABLE // 1024} KiB, and no program starts with it")


def _volumes(values: Mapping[str, Any]) -> Iterator[Mistake]:
    names = [volume["name"] for volume in values["extraVolumes"]]
    yield from _duplicates("extraVolumes", names)
    if values["econ"]["enabled"] and "econ" in names:
        yield Mistake((("extraVolumes", names.index("econ")), ("econ", "enabled")), "has the name of econ's own volume")
    mounts = values["extraVolumeMounts"]
    for number, mount in enumerate(mounts):
        if mount["name"] not in names:
            message = f"names no volume of `extraVolumes`: {mount['name']} {unknown(mount['name'], names)}"
            yield Mistake((("extraVolumeMounts", number, "name"), ("extraVolumes",)), message)
    disk, consoles = values["storage"]["mountPath"], {name: f"/run/gameserver/{name}" for name in ("rcon", "econ")}
    for console, path in consoles.items():
        if disk == path and values[console]["enabled"]:
            yield Mistake(
                (("storage", "mountPath"), (console, "enabled")),
                f"is {path}, where the password of {console} is mounted",
            )
    own = [disk, *consoles.values()]
    paths = [*own, *(mount["mountPath"] for mount in mounts)]
    for number, path in enumerate(paths[len(own) :]):
        if path in paths[: number + len(own)]:
            yield Mistake((("extraVolumeMounts", number, "mountPath"),), f"is {path}, where another volume is mounted")
    for number, volume in enumerate(values["extraVolumes"]):
        yield from _projected(number, volume.get("projected", {}).get("sources", []))


def _projected(number: int, sources: list[Mapping[str, Any]]) -> Iterator[Mistake]:
    """Kubernetes refuses a file that two sources of one volume have, but not that of a token."""
    seen: set[str] = set()
    for index, source in enumerate(sources):
        for kind in ("configMap", "secret", "downwardAPI"):
            for item in source.get(kind, {}).get("items", []):
                if item["path"] in seen:
                    where = ("extraVolumes", number, "projected", "sources", index, kind, "items")
                    yield Mistake((where,), f"has the path {item['path']}, which the volume has already")
                seen.add(item["path"])


def _limits(values: Mapping[str, Any]) -> Iterator[Mistake]:
    for key in ("cpu", "ephemeralStorage"):
        request, limit = values[key]["request"], values[key]["limit"]
        if request and limit and _size(request) > _size(limit):
            message = f"requests {request} but limits it to {limit}: the limit must not be smaller than the request"
            yield Mistake(((key, "limit"), (key, "request")), message)


def _stop(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Neither the kubelet nor its image may kill a game before it can have saved."""
    if name := values["stop"]["delayVariable"]:
        yield from _stop_delay(values, name)
    if name := values["stop"]["durationVariable"]:
        yield from _stop_duration(values, name)


def _stop_delay(values: Mapping[str, Any], name: str) -> Iterator[Mistake]:
    """The kubelet must not kill a game before its image has told it to stop, because such a game never saves."""
    grace, (text, paths) = values["terminationGracePeriodSeconds"], _variable(values, name)
    text = text or "0"
    if not re.fullmatch("[0-9]{1,5}", text):
        yield Mistake(paths, "must be a whole number of seconds")
    elif grace < (least := int(text) + _SHORTEST_STOP):
        message = (
            f"kills the game at a stop before it can save: `terminationGracePeriodSeconds` is {grace} and must be at "
            f"least {least}, which is {name} ({text}) and {_SHORTEST_STOP}"
        )
        yield Mistake((("terminationGracePeriodSeconds",), *paths), message)


def _stop_duration(values: Mapping[str, Any], name: str) -> Iterator[Mistake]:
    """An image must not kill a game that it has just told to stop. With 0 it never does, and Kubernetes alone does."""
    text, paths = _variable(values, name)
    # Another variable's text stays unknown, as a Secret's does.
    if not text or "$(" in text:
        return
    if not (match := _SECONDS.fullmatch(text)):
        yield Mistake(paths, f"must be a whole number of seconds, of at least {_SHORTEST_SAVE}, not {text[:40]}")
        return
    seconds = sum(float(number or 0) * unit for number, unit in zip(match.groups(), (3600, 60, 1), strict=True))
    if 0 < seconds < _SHORTEST_SAVE:
        message = (
            f"kills the game at a stop before it can save: {name} is {text} and must be at least {_SHORTEST_SAVE}, "
            "or 0 to let Kubernetes alone do it"
        )
        yield Mistake(paths, message)


def _variable(values: Mapping[str, Any], name: str) -> tuple[str, tuple[ValuePath, ...]]:
    """The text of a variable, and where it may be from; "" if it is not set, or if a Secret or the like has it."""
    paths: tuple[ValuePath, ...] = (("environment", name), ("extraEnv",))
    for variable in values["extraEnv"]:
        if variable["name"] == name:
            return variable.get("value", ""), paths[::-1]
    return values["environment"].get(name, ""), paths


def _annotations(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Kubernetes takes 256 KiB of annotations an object; half of it is left to the chart, the API and other tools."""
    for path in (("podAnnotations",), ("service", "annotations"), ("sftp", "annotations")):
        annotations: Any = values
        for key in path:
            annotations = annotations[key]
        if sum(len(name.encode()) + len(text.encode()) for name, text in annotations.items()) > _MOST_ANNOTATIONS:
            yield Mistake((path,), f"are more than {_MOST_ANNOTATIONS // 1024} KiB in all")


def _annotations_of_kubernetes(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Annotations whose texts Kubernetes checks.

    https://kubernetes.io/docs/reference/labels-annotations-taints/
    """
    for name, text in values["podAnnotations"].items():
        path: ValuePath = ("podAnnotations", name)
        if name == _DELETION_COST and not (_WHOLE.fullmatch(text) and -(2**31) <= int(text) < 2**31):
            yield Mistake((path,), "must be a whole number of 32 bits")
        elif name.startswith(_APPARMOR) and name != f"{_APPARMOR}game":
            yield Mistake((path,), "names no container of the pod: its only one is game")
        elif name.startswith(_APPARMOR) and not re.fullmatch("(?s)(runtime/default|unconfined|localhost/.*)?", text):
            yield Mistake((path,), "must be runtime/default, unconfined or localhost/<profile>")
    for service in ("service", "sftp"):
        text, kind = values[service]["annotations"].get(_SOURCE_RANGES), values[service]["type"]
        if text is None or (service == "sftp" and not values["sftp"]["enabled"]):
            continue
        path = (service, "annotations", _SOURCE_RANGES)
        ranges = [part.strip() for part in text.split(",")] if text.strip() else []
        if kind != "LoadBalancer":
            yield Mistake((path, (service, "type")), f"is for the type LoadBalancer, and this is {kind}")
        elif not values["service"]["loadBalancerSourceRanges"] and not all(map(_is_range, ranges)):
            yield Mistake((path,), "must be address ranges such as 192.0.2.0/24,2001:db8::/32")


def _address_ranges(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """What the schema's pattern lets through: `::::/8`, and an exception that is no part of its range."""
    for path, text, wholes in _ranges(values):
        if (network := _network(text)) is None:
            yield Mistake((path,), "must be an address range such as 192.0.2.0/24 or 2001:db8::/32")
        elif wholes and not any(_is_part(network, _network(whole)) for whole in wholes):
            yield Mistake((path,), f"must be a part of {' or '.join(wholes)}, not all of it")


def _ranges(values: Mapping[str, Any]) -> Iterator[tuple[ValuePath, str, tuple[str, ...]]]:
    """Yield each address range with its path; an exception also with the ranges that it may be a part of."""
    for number, text in enumerate(values["service"]["loadBalancerSourceRanges"]):
        yield ("service", "loadBalancerSourceRanges", number), text, ()
    for number, text in enumerate(values["networkPolicy"]["egressExcept"]):
        yield ("networkPolicy", "egressExcept", number), text, ("0.0.0.0/0", "::/0")
    for number, source in enumerate(values["networkPolicy"]["rconFrom"]):
        if block := source.get("ipBlock"):
            path: ValuePath = ("networkPolicy", "rconFrom", number, "ipBlock")
            yield (*path, "cidr"), block["cidr"], ()
            for index, text in enumerate(block.get("except", [])):
                yield (*path, "except", index), text, (block["cidr"],)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _is_range(text: str) -> bool:
    # Kubernetes takes leading zeros, as in 010.0.0.0/8, for decimal numbers.
    decimal = re.sub(r"\b0+(?=[0-9])", "", text)
    return re.search("/[0-9]+$", decimal) is not None and _network(decimal) is not None


def _is_part(part: Any, whole: Any) -> bool:
    return whole is not None and part.version == whole.version and part != whole and part.subnet_of(whole)


def _duplicates(key: str, names: list[str]) -> Iterator[Mistake]:
    for number, name in enumerate(names):
        if name in names[:number]:
            yield Mistake(((key, number),), f"repeats the name {name}")


def _size(text: str) -> float:
    """The value of a quantity that the schema accepts.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    units = {"m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    number, unit = re.fullmatch(r"([0-9.]+)(.*)", text).groups()  # type: ignore[union-attr]
    return float(number) * units.get(unit, 1)


_CHECKS = (
    _ports, _variables, _volumes, _limits, _stop, _annotations, _annotations_of_kubernetes, _address_ranges,
)  # fmt: skip
