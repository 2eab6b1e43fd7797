"""gunicorn's configuration: one process with many threads.

The event loop for helm, the list of servers and the limit of helm processes exist once per process. To scale, add
replicas, not workers.
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
# At most 24 of these run operations (see web/hooks.py), and 8 give answers that have waited (see worker.py). So reads
# and probes always find a free one.
threads = 56
worker_connections = 1000
keepalive = 75
# From SIGTERM: draining, then the longest operation. The pod's grace period also includes preStop.
graceful_timeout = _settings.drain_seconds + 90
timeout = 120
# The root file system is read-only, and a heartbeat file on a disk could stall.
worker_tmp_dir = "/dev/shm"  # noqa: S108
control_socket_disable = True
proc_name = "gameserver-api"
# The application logs each request.
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
    """On SIGTERM, keep serving for `drain_seconds` while probes fail and connections close, then stop.

    The nodes need a moment to notice that a pod ends. Until then they still send new connections, which a closed
    listener would reset.
    """

    # Imported in the worker; otherwise gunicorn's main process would hold a second copy of the application.
    from service.web.draining import draining

    def drain(number: int, frame: FrameType | None) -> None:
        if draining.is_set():
            return
        draining.set()
        # gunicorn ignores the application's `Connection: close`, but sends its own if no connection may be kept. Do not
        # use `keepalive = 0`: it also cuts connections whose last answer, started earlier, has promised keep-alive.
        worker.max_keepalived = 0
        timer = threading.Timer(_settings.drain_seconds, worker.handle_exit, (signal.SIGTERM, None))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, drain)
