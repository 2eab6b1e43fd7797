"""Every ci file of a chart renders to its golden manifests, and its objects follow the rules of this project.

`make lint` runs `helm lint`, Kubernetes' schemas and kube-score on the same ci files (lint.py).
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts import golden
from tests.charts.rendering import (
    CHARTS,
    CI_FILES,
    RELEASES,
    Manifest,
    Refused,
    case,
    chart_of,
    helm,
    leaves,
    pods,
    render,
)

each_file = pytest.mark.parametrize("file", CI_FILES, ids=case)
# sshd and its agent need root, a few capabilities and the node's folders, and the disk driver mounts on the node:
# sftp_daemonset/test_chart.py and disk_driver/test_chart.py have what they may.
each_restricted_file = pytest.mark.parametrize(
    "file", [file for file in CI_FILES if chart_of(file) not in ("sftp-daemonset", "disk-driver")], ids=case
)
each_chart = pytest.mark.parametrize("chart", RELEASES)


@each_file
def test_a_configuration_renders_what_was_reviewed(file: Path) -> None:
    """A change of a template shows in the golden manifests; `python -m tests.charts.golden` updates them."""
    assert golden.manifests(file) == golden.read(file)


def test_no_manifests_are_left_of_a_configuration_that_is_gone() -> None:
    """Each file in manifests/ belongs to a ci file."""
    assert sorted(golden.FOLDER.iterdir()) == sorted(golden.path(file) for file in CI_FILES)


@each_chart
def test_an_older_kubernetes_is_refused(chart: str) -> None:
    """A Kubernetes older than the oldest tested one is refused with a message."""
    file = next(file for file in CI_FILES if chart_of(file) == chart)
    with pytest.raises(Refused, match=r"requires kubeVersion: >=1\.31"):
        render(chart, {}, file, kube_version="1.30.9")


@each_restricted_file
def test_every_pod_meets_restricted(file: Path) -> None:
    """The Pod Security Standard "restricted" holds for every pod, including the pods of `helm test`."""
    for spec in pods(render(chart_of(file), {}, file)).values():
        assert _offences(spec) == []
        assert len(spec["containers"]) == 1
        (container,) = spec["containers"]
        assert "memory" in container["resources"]["requests"]
        assert "memory" in container["resources"]["limits"]
        assert spec["enableServiceLinks"] is (spec.get("restartPolicy") == "OnFailure")


def _offences(spec: Manifest) -> list[str]:
    """How a pod violates the standard "restricted".

    See https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted.
    """
    gaps: list[str] = [
        key for key in ("hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers") if key in spec
    ]
    allowed = {"name", "configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}
    gaps += [f"volume {volume['name']}" for volume in spec.get("volumes", []) if volume.keys() - allowed]
    context = spec["securityContext"]
    if context.get("seccompProfile") != {"type": "RuntimeDefault"} or context.get("runAsNonRoot") is not True:
        gaps.append("pod security context")
    if context["runAsUser"] == 0:
        gaps.append("root")
    for container in spec["containers"]:
        context = container["securityContext"]
        if context["allowPrivilegeEscalation"] is not False or context["capabilities"] != {"drop": ["ALL"]}:
            gaps.append(f"security context of {container['name']}")
        if "privileged" in context or any("hostPort" in port for port in container.get("ports", [])):
            gaps.append(f"privileges of {container['name']}")
    return gaps


@each_restricted_file
def test_services_reach_one_workload_and_not_the_test(file: Path) -> None:
    """Services and NetworkPolicies select the pods of one workload and no others; so does each workload.

    The policies of the backups' Jobs are in the namespaces of those.
    """
    manifests = render(chart_of(file), {}, file)
    workloads = [m for m in manifests.values() if m["kind"] in ("StatefulSet", "Deployment")]
    pods = [workload["spec"]["template"]["metadata"]["labels"].items() for workload in workloads]
    tests = [m["metadata"]["labels"].items() for m in manifests.values() if m["kind"] == "Pod"]
    selectors = [
        m["spec"]["selector"] for m in manifests.values() if m["kind"] == "Service" and "selector" in m["spec"]
    ]
    selectors += [
        m["spec"]["podSelector"]["matchLabels"]
        for m in manifests.values()
        if m["kind"] == "NetworkPolicy" and m["metadata"]["namespace"] == workloads[0]["metadata"]["namespace"]
    ]
    selectors += [
        m["spec"]["selector"]["matchLabels"] for m in manifests.values() if m["kind"] == "PodDisruptionBudget"
    ]
    selectors += [workload["spec"]["selector"]["matchLabels"] for workload in workloads]
    for selector in selectors:
        assert sum(selector.items() <= labels for labels in pods) == 1
        assert not any(selector.items() <= test for test in tests)


@each_chart
def test_no_pod_has_the_charts_version(chart: str, tmp_path: Path) -> None:
    """The labels of a new chart version restart nothing."""
    helm("package", CHARTS / chart, "--version", "9.9.9", "--app-version", "9.9.9", "--destination", tmp_path)
    (archive,) = tmp_path.glob("*-9.9.9.tgz")
    with tarfile.open(archive) as package:
        package.extractall(tmp_path, filter="data")
    (folder,) = (path.parent for path in tmp_path.glob("*/Chart.yaml"))
    for file in (file for file in CI_FILES if chart_of(file) == chart):
        tag: dict[str, Any] = {"image": {"tag": "1"}}
        if chart == "api":
            # The controller has the Jobs' image in its environment. It is built together with the API's.
            tag = {**tag, "backups": tag}
        now, later = render(chart, tag, file), render(chart, tag, file, folder=folder)
        for name, manifest in now.items():
            template, next_one = manifest["spec"].get("template") if "spec" in manifest else None, later[name]
            assert template is None or template == next_one["spec"]["template"]


@each_chart
def test_the_package_alone_renders_the_same(chart: str, tmp_path: Path) -> None:
    """`helm package` includes every file that a template needs."""
    helm("package", CHARTS / chart, "--destination", tmp_path)
    (package,) = tmp_path.glob("*.tgz")
    for file in (file for file in CI_FILES if chart_of(file) == chart):
        packaged = render(chart, {}, file, folder=package)
        assert packaged.keys() == render(chart, {}, file).keys()


@each_chart
def test_the_schema_knows_each_value_and_no_other(chart: str) -> None:
    """values.yaml and its schema name the same values."""
    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    assert _paths(schema) - {"global"} == _closed_paths(values, schema)


@each_chart
def test_the_schema_is_closed_wherever_it_names_properties(chart: str) -> None:
    """A misspelt value is always refused."""
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())

    def open_ones(node: Any, path: str) -> list[str]:
        if isinstance(node, list):
            return [item for part in node for item in open_ones(part, path)]
        if not isinstance(node, dict):
            return []
        items = [item for key, value in node.items() for item in open_ones(value, f"{path}/{key}")]
        named = isinstance(node.get("properties"), dict) and node.get("type") == "object"
        return items + ([path] if named and node.get("additionalProperties") is not False else [])

    assert open_ones(schema, "") == []


@each_chart
def test_every_value_has_its_sentence(chart: str) -> None:
    """The README's table of values has no empty description."""
    readme = (CHARTS / chart / "README.md").read_text()
    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    rows = [
        line.strip("|").split(" | ") for line in readme.splitlines() if line.startswith("| ") and line.count(" | ") >= 3
    ]
    described = {row[0].strip().replace('"', ""): row[-1].strip(" |") for row in rows if row[0].strip() != "Key"}
    documented = set(described) & (leaves(values) | set(values) | _paths_above(values))
    assert [path for path in leaves(values) if not any(path == d or path.startswith(f"{d}.") for d in documented)] == []
    assert [path for path, text in described.items() if not text] == []


def _paths_above(values: Manifest) -> set[str]:
    return {path.rpartition(".")[0] for path in leaves(values)}


def _paths(schema: Manifest, above: str = "") -> set[str]:
    """The dotted paths of a schema's properties that have no properties themselves."""
    names = set()
    for key, value in schema["properties"].items():
        deeper = _paths(value, f"{above}{key}.") if "properties" in value else {f"{above}{key}"}
        names |= deeper
    return names


def _closed_paths(values: Manifest, schema: Manifest, above: str = "") -> set[str]:
    """The dotted paths of the values, only as deep as the schema's properties; with the schema's optional ones."""
    names = set()
    for key, value in schema["properties"].items():
        path = f"{above}{key}"
        if key == "global":
            continue
        assert key in values, f"{path} is in the schema but not in values.yaml"
        if "properties" in value and isinstance(values[key], dict) and values[key]:
            names |= _closed_paths(values[key], value, f"{path}.")
        else:
            names |= _paths(value, f"{path}.") if "properties" in value else {path}
    unknown = values.keys() - schema["properties"].keys()
    assert not unknown, f"{above}{unknown} is in values.yaml but not in the schema"
    return names
