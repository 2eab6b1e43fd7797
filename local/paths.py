"""Where things are: what the checkout keeps, and what the user's cache keeps for every checkout."""

import os
from pathlib import Path

#: The checkout.
ROOT = Path(__file__).resolve().parent.parent

#: What `make run` writes in the checkout: the cluster's data, `env`, `bin/` and the logs.
LOCAL = ROOT / ".local"
NODES = LOCAL / "nodes"
LOGS = LOCAL / "logs"
BIN = LOCAL / "bin"
ENV = LOCAL / "env"
KUBECONFIG = LOCAL / "kubeconfig"
TOKEN = LOCAL / "token"

#: Compiled binaries, images and Python packages, each keyed by what it is made from.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gameserver-cluster"

#: Names the machine's one local cluster, whichever checkout it belongs to.
OWNER = Path("/run/gameserver-cluster/owner.json")
