"""The charts as they were at an earlier commit of this repository."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from local.paths import ROOT


def chart_at(commit: str, chart: str, folder: Path) -> Path:
    """Unpack the folder charts/`chart` of a commit into `folder`; returns the chart's path.

    Raises:
        AssertionError: this clone does not have the commit.
    """
    command = ["git", "archive", commit, f"charts/{chart}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert result.returncode == 0, f"the clone lacks {commit} (git fetch --unshallow): {result.stderr!r}"
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "charts" / chart
