"""What `make run` writes for a shell: the addresses and the token of the local cluster."""

from __future__ import annotations

import os
import re
import shlex

from local import paths


def local_environment() -> dict[str, str]:
    """The variables of `.local/env`, as a shell reads them. Raises FileNotFoundError before the first `make run`."""
    exports = re.findall(r"^export (\w+)=(.+)$", paths.ENV.read_text(), re.MULTILINE)
    return {name: shlex.split(value)[0] for name, value in exports}


def use_local_cluster() -> None:
    """Let this process and the programs that it runs talk to the local cluster, with the cluster's kubectl and helm."""
    os.environ.update(local_environment())
    os.environ["PATH"] = f"{paths.BIN}:{os.environ['PATH']}"
