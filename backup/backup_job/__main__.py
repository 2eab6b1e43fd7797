"""`python3 -m backup_job <command>`: one command, as a Job's pod runs it.

The request is a file (`places.py`). The answer is the pod's termination message, and the last line of its log:
`{"ok": true, …}`, or `{"ok": false, "code": "…", "message": "…"}` with exit code 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from backup_job.errors import JobFailed
from backup_job.places import Places
from backup_job.request import parse

#: Kubernetes cuts a termination message there, and half a JSON text is none.
MOST_BYTES = 4096
#: The module of each command; a command's function has its name, with `_` for `-`.
_MODULES = {
    "catalogue": "repository",
    "init": "repository",
    "backup": "repository",
    "forget": "repository",
    "settings": "repository",
    "recover": "recovery",
    "lay-out": "disk",
    "place": "disk",
    "undo": "disk",
    "clean": "disk",
    "prove": "disk",
    "inspect": "disk",
}
_log = logging.getLogger("backup_job")


def main(arguments: list[str]) -> int:
    """Run one command; 0 if it did what it was to do."""
    parser = argparse.ArgumentParser(prog="backup_job")
    parser.add_argument("command", choices=sorted(_MODULES))
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the volumes are mounted")
    options = parser.parse_args(arguments)
    places = Places(options.root.absolute())
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _stop)
    # restic asks with it whether the process of a lock is alive; it may ask us.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # What is written below /world belongs to the game, which may have another group than its user's.
    os.umask(0o022)
    try:
        answer = {"ok": True, **_run(options.command, places)}
    except JobFailed as failed:
        answer = {"ok": False, "code": failed.code, "message": failed.message}
    except Exception as failed:
        # The exception's text may name a customer's file, so it stays in the log.
        _log.exception("the command failed")
        answer = {"ok": False, "code": "internal", "message": f"The program failed with {type(failed).__name__}."}
    _tell(answer, places)
    return 0 if answer["ok"] else 1


def _run(command: str, places: Places) -> dict[str, Any]:
    try:
        text = places.request.read_text()
    except (OSError, ValueError):
        raise JobFailed("bad-request", "The request cannot be read: there is no such file.") from None
    request = parse(command, text, places)
    module = importlib.import_module(f"backup_job.{_MODULES[command]}")
    answer: dict[str, Any] = getattr(module, command.replace("-", "_"))(request)
    return answer


def _tell(answer: dict[str, Any], places: Places) -> None:
    text = json.dumps(answer)
    if len(text) > MOST_BYTES:
        text = json.dumps({"ok": False, "code": "internal", "message": "The answer is too long."})
    places.termination.write_text(text)
    print(text, flush=True)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # As an exception, so that what runs is ended and tidies up.
    raise JobFailed("stopped", "The Job was ended.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
