"""The controller in its own process, as in its container."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from local.paths import ROOT


def start(name: str, variables: Mapping[str, str], log: Path, within: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a controller.

    Args:
        name: Its pod's name.
        variables: The rest of its environment.
        log: The file to which it appends its log.
        within: The command that runs it, such as one that enters another network.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [*within, sys.executable, "-m", "service.controller"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "METRICS_PORT": "0", **variables, "POD_NAME": name},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
