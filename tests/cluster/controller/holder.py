"""Holds a server's game still, as a process that a test may kill: `holder.py hold|release ID OPERATION`.

It prints what comes of it as JSON, and after a hold it lives on until it is killed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial

from service.assembly import build_context
from service.cluster.reader import ClusterReader
from service.helm.releases import HelmReleases
from service.kube.client import Kube
from service.operations.hold import hold, release
from service.records.store import RecordStore
from service.settings import Settings


def main(verb: str, id: str, operation: str) -> None:
    """Do it."""
    settings = Settings.from_environment(os.environ)
    cluster, records = ClusterReader(settings), partial(RecordStore, Kube(), settings.servers_namespace)
    context = build_context(settings, cluster, HelmReleases(settings), records=records)
    objects = cluster.server(int(id))
    began = time.monotonic()
    held = (hold if verb == "hold" else release)(context, objects, operation)
    print(json.dumps({**vars(held), "took": time.monotonic() - began}), flush=True)
    if verb == "hold":
        time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
