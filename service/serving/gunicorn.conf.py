"""How gunicorn serves the API: one process of many threads.

One process, since the event loop for helm, the list of servers and the limit of helm processes are per process;
more replicas, not more workers, are how it grows.
"""

import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from service.errors import StartupError
from service.settings import Settings
from service.telemetry import logs

try:
    _settings = Settings.from_environment(os.environ)
except StartupError as error:
    logs.configure("info")
    logging.getLogger("service.wsgi").critical("cannot start: %s", error)
    sys.exit(3)

bind = f"0.0.0.0:{_settings.port}"
workers = 1
worker_class = "service.serving.worker.Worker"
# Half of these at most hold operations (see web/hooks.py), so reads and probes always find one.
threads = 48
worker_connections = 1000
keepalive = 75
# From SIGTERM on: draining, then the longest operation. The pod's own grace period has preStop on top of it.
graceful_timeout = _settings.drain_seconds + 90
timeout = 120
# The root file system is read-only, and a heartbeat on a disk could stall.
worker_tmp_dir = "/dev/shm"  # noqa: S108
control_socket_disable = True
proc_name = "gameserver-api"
# Each request is logged by the app.
accesslog = None
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "service.telemetry.logs.JsonFormatter"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
    "root": {"level": "INFO", "handlers": ["stdout"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": [], "propagate": True, "qualname": "gunicorn.error"},
        "gunicorn.access": {"level": "INFO", "handlers": [], "propagate": False, "qualname": "gunicorn.access"},
    },
}


def post_worker_init(worker: Any) -> None:
    """On SIGTERM go on serving for a while, with probes that fail and connections that close, then end.

    The Services' rules on the nodes follow a pod's end only after a moment: until they do, new connections still
    come, and a closed listener would reset them.
    """

    # Imported here, in the worker, or gunicorn's own process would hold a second copy of the application.
    from service.web.draining import draining

    def drain(number: int, frame: FrameType | None) -> None:
        if draining.is_set():
            return
        draining.set()
        # gunicorn ignores an app's own `Connection: close`; where no connection may be kept it says so itself. Not
        # `keepalive = 0`: that also cuts a connection whose answer, begun before, has just said keep-alive.
        worker.max_keepalived = 0
        end = threading.Timer(_settings.drain_seconds, worker.handle_exit, (signal.SIGTERM, None))
        end.daemon = True
        end.start()

    signal.signal(signal.SIGTERM, drain)
