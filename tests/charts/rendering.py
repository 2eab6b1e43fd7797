"""`helm template` as a function: it takes a chart and values, and returns the manifests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from local.paths import ROOT
from service.yamltext import as_yaml

CHARTS = ROOT / "charts"
CI_FILES = sorted(CHARTS.glob("*/ci/*-values.yaml"))
RELEASES = {
    "api": ("api", "gameserver-system"),
    "disk-driver": ("disks", "gameserver-disks"),
    "gameserver": ("server-4711", "gameservers"),
    "sftp-daemonset": ("sftp", "gameserver-sftp"),
}
"""The release name and the namespace that the project gives each chart."""

Manifest = dict[str, Any]

# The C loader is ten times faster, and a rendered chart has a dozen documents.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(Exception):
    """Helm refused the values. The message is the one that an operator sees."""


def helm(*arguments: str | Path, stdin: str = "") -> str:
    """Run helm without access to a cluster; returns its output, raises Refused with its complaints."""
    program = shutil.which("helm", path=f"{ROOT / '.local' / 'bin'}:{os.environ['PATH']}")
    assert program, "there is no helm on the PATH or in .local/bin: `python3 -m local tools` builds it"
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/tmp"), "KUBECONFIG": os.devnull}
    # Helm ends before it would need the memory, as in service/helm/command.py.
    environment |= {"GOGC": "off", "GOMEMLIMIT": "256MiB"}
    result = subprocess.run(
        [program, *arguments], input=stdin, capture_output=True, text=True, env=environment, check=False
    )
    if result.returncode != 0:
        # `helm lint` prints its findings to standard output.
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
    """The manifests of a chart by "Kind/name", for its release and namespace in RELEASES."""
    name, namespace = RELEASES[chart]
    arguments: list[str | Path] = ["template", release or name, folder or CHARTS / chart, "--namespace", namespace]
    arguments += ["--kube-version", kube_version]
    for file in files:
        arguments += ["--values", file]
    # Another folder may change between two calls; the charts themselves do not.
    template = helm if folder else _helm_once
    return by_name(yaml.load_all(template(*arguments, "--values", "-", stdin=as_yaml(values or {})), Loader=_Loader))


def chart_that_finds(lookup: str, template: str, folder: Path) -> Path:
    """A copy of the chart gameserver in `folder` that takes what a `lookup` finds from its value `existing`.

    Without a cluster, `lookup` finds nothing.

    Args:
        lookup: The text of the lookup in the template.
        template: The template's file.
        folder: A folder to write to.
    """
    chart = Path(shutil.copytree(CHARTS / "gameserver", folder / "gameserver"))
    file = chart / "templates" / template
    text = file.read_text()
    assert lookup in text
    file.write_text(text.replace(lookup, "$.Values.existing"))
    (chart / "values.schema.json").unlink()
    return chart


@cache
def _helm_once(*arguments: str | Path, stdin: str) -> str:
    return helm(*arguments, stdin=stdin)


def by_name(documents: Iterable[Manifest | None]) -> dict[str, Manifest]:
    """The manifests by "Kind/name"; fails if two have the same."""
    manifests: dict[str, Manifest] = {}
    for document in documents:
        if document:
            key = f"{document['kind']}/{document['metadata']['name']}"
            assert key not in manifests, f"{key} is rendered twice"
            manifests[key] = document
    return manifests


def chart_of(file: Path) -> str:
    """The chart that a ci file belongs to."""
    return file.parents[1].name


def case(file: Path) -> str:
    """The name of a ci file in test ids and file names: chart and configuration."""
    return f"{chart_of(file)}-{file.name.removesuffix('-values.yaml')}"


def pods(manifests: Mapping[str, Manifest]) -> dict[str, Manifest]:
    """The pod specs in the manifests, by the "Kind/name" of the object that has them."""
    specs = {}
    for name, manifest in manifests.items():
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Pod":
            specs[name] = spec
        elif "template" in spec:
            specs[name] = spec["template"]["spec"]
    return specs


def leaves(values: Mapping[str, Any], above: str = "") -> set[str]:
    """The dotted paths of all values except non-empty mappings."""
    paths = set()
    for key, value in values.items():
        path = f"{above}{key}"
        paths |= leaves(value, f"{path}.") if isinstance(value, Mapping) and value else {path}
    return paths


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, as Helm merges values: mappings are merged, and of anything else `above` wins."""
    result = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            result[key] = merged(below[key], above[key])
    return result


def nested(path: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` for the path "a.b"."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def at(manifest: Any, path: str) -> Any:
    """The value at a path such as `spec.ports.0.name`; None if there is none.

    If a key contains a dot, separate the keys with `/`, and write `~` for a slash within a key.
    """
    for key in path.split("/") if "/" in path else path.split("."):
        key = key.replace("~", "/")
        try:
            manifest = manifest[int(key) if isinstance(manifest, list) else key]
        except (KeyError, IndexError, TypeError):
            return None
    return manifest
