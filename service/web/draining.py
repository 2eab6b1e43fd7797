"""Whether this process is about to end. Known to gunicorn's configuration too, so it needs no Flask."""

from __future__ import annotations

import threading

draining = threading.Event()
"""Set once this process has been told to end: from then on it wants no new connections."""
