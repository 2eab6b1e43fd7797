"""A replica of the API, reduced to one write: `python -m tests.contract.replica <write> <id>`, to be killed in a test.

The settings come from CONTRACT_NAMESPACE, HELM and KUBECONFIG; prints `done` at the end.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace

from service.releases import Releases
from service.settings import Settings
from tests.contract.conftest import VALUES


def main(write: str, id: int) -> None:
    settings = replace(
        Settings(), servers_namespace=os.environ["CONTRACT_NAMESPACE"], helm=os.environ["HELM"], pod_name="replica"
    )
    releases = Releases(settings)
    print("ready", flush=True)
    if write == "install":
        releases.install(id, VALUES)
    elif write == "change":
        releases.change(id, lambda values: {**values, "ramGb": 3})
    else:
        releases.uninstall(id)
    print("done", flush=True)


def stay() -> None:
    """A replica goes on living after a write that failed, and puts right what it has to."""
    while any(thread.name.startswith("converge") for thread in threading.enumerate()):
        time.sleep(0.1)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]))
    finally:
        stay()
