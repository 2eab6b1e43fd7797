"""`python3 -m disk_agent`: the agent, as the pod runs it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from types import FrameType

from disk_agent.agent import Agent
from disk_agent.kube import Kube
from disk_agent.logs import JsonHandler
from disk_agent.settings import Settings


def main() -> None:
    """Set up logging and run the agent."""
    logging.basicConfig(level=logging.INFO, handlers=[JsonHandler()])
    signal.signal(signal.SIGTERM, _stop)
    threading.excepthook = _crash
    # Folders and sockets get the modes that the code asks for, whatever the runtime's umask.
    os.umask(0o022)
    kube = Kube(os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"]))
    Agent(kube, Settings.from_environment(os.environ)).run()


def _stop(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _crash(failed: threading.ExceptHookArgs) -> None:
    """Exit, so that the agent is restarted: without one of its threads it would look healthy and miss events."""
    logging.getLogger(__name__).critical("a thread failed", exc_info=failed.exc_value)
    os._exit(1)


if __name__ == "__main__":
    main()
