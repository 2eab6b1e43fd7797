"""Brings all servers back to an empty cluster: what the catalogue names is created again through the API there.

The API gives each server its old uid and its newest backup, and the controller there restores that. A server that is
back already is left alone, so this can be repeated.
"""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backup_job import restic
from backup_job.errors import JobFailed
from backup_job.places import Places
from backup_job.repository import catalogued, stored_backups, stored_settings
from backup_job.request import Request, Store

#: So many of a server's backups are made known to the API, the newest of them.
MOST_BACKUPS = 50
#: Seconds for which a call is sent again that the API cannot take now.
PATIENCE = 1800.0
_CALL_SECONDS = 90.0
_BUSY = (429, 502, 503, 504)
_LONGEST_PAUSE = 30.0
_SHOWN_MOST = 10
_WHY_LETTERS = 200
_log = logging.getLogger("backup_job")


@dataclass(frozen=True)
class _Found:
    """A server of the catalogue that has a backup: its entry, and its backups, oldest first."""

    about: Mapping[str, Any]
    backups: list[restic.Snapshot]


def recover(request: Request) -> dict[str, Any]:
    """Create every server of the catalogue again, with its newest backup.

    Of several servers that had one id, the one with the newest backup gets it.

    The answer: `created`, `there` (which the API knows already), `without_backup`, `older` (whose ids others have).

    Raises:
        JobFailed: `not-all`: some could not be created; and what a store can have.
    """
    store, places = request.store, request.places
    assert store is not None, "the command's request has a store"
    answer = {"created": 0, "there": 0, "without_backup": 0, "older": 0}
    problems: list[str] = []
    newest: dict[int, _Found] = {}
    for about in catalogued(store, places):
        try:
            backups = stored_backups(store, about["uid"], places)[-MOST_BACKUPS:]
        except JobFailed as failed:
            problems.append(_problem(about, failed.message))
            continue
        found, other = _Found(about, backups), newest.get(about["id"])
        if not backups:
            answer["without_backup"] += 1
        elif other and _time(other.backups[-1]) > _time(backups[-1]):
            answer["older"] += 1
        else:
            answer["older"] += other is not None
            newest[about["id"]] = found
    for found in newest.values():
        try:
            answer["created" if _created(request.api, found, store, places) else "there"] += 1
        except JobFailed as failed:
            problems.append(_problem(found.about, failed.message))
    if problems:
        more = f", and {len(problems) - _SHOWN_MOST} more" if len(problems) > _SHOWN_MOST else ""
        raise JobFailed("not-all", f"{json.dumps(answer)}; {len(problems)} failed: {problems[:_SHOWN_MOST]}{more}")
    return answer


def _problem(about: Mapping[str, Any], why: str) -> str:
    text = f"server {about['id']} (uid {about['uid']}): {why[:_WHY_LETTERS]}"
    _log.error("%s", text)
    return text


def _time(backup: restic.Snapshot) -> datetime:
    return datetime.fromisoformat(backup.time).astimezone(UTC)


def _created(api: str, found: _Found, store: Store, places: Places) -> bool:
    """Create a server through the API; returns whether it was not there."""
    uid = found.about["uid"]
    body = {
        "uid": uid,
        "values": stored_settings(store, uid, found.backups[-1].id, places),
        "backups": [
            {
                "id": next(tag.removeprefix("backup=") for tag in backup.tags if tag.startswith("backup=")),
                "snapshot": backup.id,
                "created": _time(backup).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            for backup in found.backups
        ],
    }
    answer = _called(f"{api}/api/v1/server/{found.about['id']}/_recover", body, places)
    created = answer.get("operation") is not None
    _log.info("server %s (uid %s): %s", found.about["id"], uid, "created" if created else "is there already")
    return created


def _called(url: str, body: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """The API's answer; the call is sent again while the API cannot take it."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {places.token.read_text().strip()}"}
    until, pause = time.monotonic() + PATIENCE, 1.0
    while True:
        call = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 (the chart's own address)
        try:
            with urllib.request.urlopen(call, timeout=_CALL_SECONDS) as answer:  # noqa: S310
                return _object(answer.read())
        except urllib.error.HTTPError as error:
            why = str(_object(error.read()).get("detail") or f"The API answers {error.code}.")
            if error.code not in (409, 429, 502, 503, 504) or (
                error.code == 409 and "Retry-After" not in error.headers
            ):
                raise JobFailed("refused", why) from None
            asked = error.headers.get("Retry-After", "")
            pause = float(asked) if asked.isdigit() else pause
        except (OSError, ValueError) as error:
            why = f"The API cannot be reached: {error}"
        if time.monotonic() > until:
            raise JobFailed("api-away", why)
        time.sleep(min(pause, _LONGEST_PAUSE))
        pause *= 2


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
