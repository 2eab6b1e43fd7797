"""Whether this process is shutting down. gunicorn's configuration imports this module, so it must not import Flask."""

from __future__ import annotations

import threading

draining = threading.Event()
"""Set when this process gets SIGTERM. From then on, clients should open new connections to other replicas."""
