"""What `make lint` asks of the charts: `helm lint --strict` with each ci file, and READMEs that are current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.charts.rendering import CHARTS, CI_FILES, ROOT, Refused, case, chart_of, helm


def helm_docs() -> str:
    """The helm-docs binary, which `local` builds where it is missing."""
    command = [sys.executable, "-m", "local", "helm-docs"]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]


def findings(file: Path) -> str:
    """What `helm lint --strict` has against a chart with a ci file; empty for nothing."""
    try:
        helm("lint", "--strict", CHARTS / chart_of(file), "--values", file)
    except Refused as refused:
        return f"{case(file)}: {refused}"
    return ""


def stale(chart: Path, program: str) -> str:
    """A complaint if the chart's README is not what helm-docs makes of its values; else empty."""
    command = [program, "--chart-search-root", str(chart), "--dry-run", "--log-level", "error"]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    readme = chart / "README.md"
    if readme.exists() and made.strip() == readme.read_text().strip():
        return ""
    return f"{chart.name}: README.md is not current; `{program} --chart-search-root {chart}` writes it"


def main() -> int:
    """Print all complaints; 1 if there are any."""
    program = helm_docs()
    charts = sorted(path.parent for path in CHARTS.glob("*/Chart.yaml"))
    complaints = [findings(file) for file in CI_FILES] + [stale(chart, program) for chart in charts]
    for complaint in filter(None, complaints):
        print(complaint, file=sys.stderr)
    return 1 if any(complaints) else 0


if __name__ == "__main__":
    sys.exit(main())
