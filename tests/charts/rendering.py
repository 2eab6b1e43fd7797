"""`helm template` as a function: a chart and values in, the manifests out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from local.paths import ROOT

CHARTS = ROOT / "charts"
CI_FILES = sorted(CHARTS.glob("*/ci/*-values.yaml"))
RELEASES = {
    "api": ("api", "gameserver-system"),
    "gameserver": ("server-4711", "gameservers"),
    "sftp-daemonset": ("sftp", "gameserver-sftp"),
}
"""The release name and the namespace that the project gives each chart."""

Manifest = dict[str, Any]

# The C loader takes a tenth of the time; a rendered chart has a dozen documents.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(Exception):
    """Helm refused the values; the message is what an operator reads."""


def helm(*arguments: str | Path, stdin: str = "") -> str:
    """Run helm without a cluster in reach; returns what it prints, raises Refused with what it complains of."""
    found = shutil.which("helm", path=f"{ROOT / '.local' / 'bin'}:{os.environ['PATH']}")
    assert found, "there is no helm on the PATH or in .local/bin: `python3 -m local tools` builds it"
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/tmp"), "KUBECONFIG": os.devnull}
    result = subprocess.run(
        [found, *arguments], input=stdin, capture_output=True, text=True, env=environment, check=False
    )
    if result.returncode != 0:
        # `helm lint` puts its findings where its other output goes.
        raise Refused(f"{result.stdout}{result.stderr}")
    return result.stdout


def render(
    chart: str,
    values: Mapping[str, Any] | None = None,
    *files: Path,
    release: str = "",
    kube_version: str = "1.35.0",
    folder: Path | None = None,
) -> dict[str, Manifest]:
    """The manifests of a chart as "Kind/name" → manifest, for the release that the project gives it."""
    name, namespace = RELEASES[chart]
    arguments: list[str | Path] = ["template", release or name, folder or CHARTS / chart, "--namespace", namespace]
    arguments += ["--kube-version", kube_version]
    for file in files:
        arguments += ["--values", file]
    return by_name(yaml.load_all(helm(*arguments, "--values", "-", stdin=as_yaml(values or {})), Loader=_Loader))


def as_yaml(values: Mapping[str, Any]) -> str:
    """The values as JSON that is YAML too, so that every text is quoted: YAML 1.1 would make a boolean of a bare `y`.

    JSON escapes what lies beyond 0xFFFF as two halves, which are no characters in YAML; it has `\\U` for the whole.
    """

    def whole(found: re.Match[str]) -> str:
        if not found["high"]:
            return found[0]
        return f"\\U{0x10000 + ((int(found['high'], 16) - 0xD800) << 10) + int(found['low'], 16) - 0xDC00:08x}"

    escapes = r"\\(?:\\|u(?P<high>d[89ab][0-9a-f]{2})\\u(?P<low>d[c-f][0-9a-f]{2}))"
    return re.sub(escapes, whole, json.dumps(values))


def by_name(documents: Iterable[Manifest | None]) -> dict[str, Manifest]:
    """The manifests by kind and name, each once."""
    found: dict[str, Manifest] = {}
    for document in documents:
        if document:
            key = f"{document['kind']}/{document['metadata']['name']}"
            assert key not in found, f"{key} is rendered twice"
            found[key] = document
    return found


def chart_of(file: Path) -> str:
    """The chart that a ci file belongs to."""
    return file.parents[1].name


def case(file: Path) -> str:
    """How a test names a ci file: chart and configuration."""
    return f"{chart_of(file)}-{file.name.removesuffix('-values.yaml')}"


def pods(manifests: Mapping[str, Manifest]) -> dict[str, Manifest]:
    """The pod specs in the manifests, by the name of what holds them."""
    found = {}
    for name, manifest in manifests.items():
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Pod":
            found[name] = spec
        elif "template" in spec:
            found[name] = spec["template"]["spec"]
    return found


def leaves(values: Mapping[str, Any], above: str = "") -> set[str]:
    """The dotted paths of all values that are no mapping with something in it."""
    found = set()
    for key, value in values.items():
        path = f"{above}{key}"
        found |= leaves(value, f"{path}.") if isinstance(value, Mapping) and value else {path}
    return found


def nested(path: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for "a.b"."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def at(manifest: Any, path: str) -> Any:
    """What is at a path such as `spec.ports.0.name`; None where nothing is.

    Where a key has a dot, `/` separates, and `~` stands for a slash within a key.
    """
    for key in path.split("/") if "/" in path else path.split("."):
        key = key.replace("~", "/")
        try:
            manifest = manifest[int(key) if isinstance(manifest, list) else key]
        except (KeyError, IndexError, TypeError):
            return None
    return manifest
