"""The checks of the charts in `make lint`.

For each ci file: `helm lint --strict`, Kubernetes' schemas, and kube-score (policy.py). For each chart: its README is
current.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate

from local.paths import ROOT
from tests.charts import policy
from tests.charts.rendering import CHARTS, CI_FILES, Refused, case, chart_of, helm, render

SUPPORTED = ("1.31.0", "1.37.0")
"""The oldest and the newest supported Kubernetes."""
CUSTOM = {"PrometheusRule", "ServiceMonitor", "VolumeSnapshotClass"}
"""Kinds that are not built into Kubernetes."""


def helm_docs() -> str:
    """The path of helm-docs. `local` builds it and kube-score, in the same folder, if they are missing."""
    command = [sys.executable, "-m", "local", "helm-docs"]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]


def findings(file: Path) -> str:
    """The complaints of `helm lint --strict` about a chart with a ci file; empty if there are none."""
    try:
        helm("lint", "--strict", CHARTS / chart_of(file), "--values", file)
    except Refused as refused:
        return f"{case(file)}: {refused}"
    return ""


def unknown(file: Path) -> Iterator[str]:
    """Each field in the manifests of a ci file that has a wrong type or that Kubernetes would drop."""
    for version in SUPPORTED:
        for name, manifest in render(chart_of(file), {}, file, kube_version=version).items():
            if manifest["kind"] not in CUSTOM:
                try:
                    kubernetes_validate.validate(manifest, version.rpartition(".")[0], strict=True)
                except kubernetes_validate.ValidationError as error:
                    yield f"{case(file)}: {name}: Kubernetes {version}: {error.message}"


def stale(chart: Path, program: str) -> str:
    """A complaint if the chart's README is not what helm-docs writes; otherwise empty."""
    command = [program, "--chart-search-root", str(chart), "--dry-run", "--log-level", "error"]
    current = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    readme = chart / "README.md"
    if readme.exists() and current.strip() == readme.read_text().strip():
        return ""
    return f"{chart.name}: README.md is not current; `{program} --chart-search-root {chart}` writes it"


def main() -> int:
    """Print all complaints; returns 1 if there are any."""
    program = helm_docs()
    charts = sorted(path.parent for path in CHARTS.glob("*/Chart.yaml"))
    complaints = [findings(file) for file in CI_FILES] + [stale(chart, program) for chart in charts]
    complaints += [complaint for file in CI_FILES for complaint in unknown(file)]
    complaints += policy.findings(Path(program).with_name("kube-score"))
    for complaint in filter(None, complaints):
        print(complaint, file=sys.stderr)
    return 1 if any(complaints) else 0


if __name__ == "__main__":
    sys.exit(main())
