"""The last lines of games that have ended: one Secret per server, which the agents of the chart gameserver-sftp write.

They are in that chart's namespace, and the API reads and deletes them with the rights that it has for the accounts. The
name has the server's uid, so a later server with the same id never shows them.
"""

from __future__ import annotations

import logging
import re

from service.errors import FileAccessNotInstalled
from service.files.accounts import AccountsKube
from service.kube.client import Kube, path
from service.logs.kept import KeptLog, kept_log
from service.settings import Settings

log = logging.getLogger(__name__)

_UID = re.compile(r"[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?")


class SecretKeptLogs:
    """The lines, in Secrets. Create it after a fork: it has sockets. Every method may raise ClusterUnavailable."""

    def __init__(self, settings: Settings, kube: Kube | None = None) -> None:
        self._namespace = settings.sftp_namespace
        self._kube = kube or AccountsKube(connections=4)

    def read(self, uid: str) -> KeptLog | None:
        """The last lines of the server with this uid; None if there are none."""
        if not _UID.fullmatch(uid):
            return None
        try:
            secret = self._kube.get(self._path(uid))
        except FileAccessNotInstalled:
            return None
        kept = None if secret is None else kept_log(secret)
        if secret is not None and kept is None:
            log.warning("the Secret log-%s is malformed", uid)
        return kept

    def remove(self, uid: str) -> None:
        """Delete a server's last lines. Idempotent; does nothing without the chart."""
        if not _UID.fullmatch(uid):
            return
        try:
            self._kube.delete(self._path(uid))
        except FileAccessNotInstalled:
            return

    def _path(self, uid: str) -> str:
        return path("v1", self._namespace, "secrets", f"log-{uid}")


class NoKeptLogs:
    """Used instead of SecretKeptLogs if the API is configured without file access: nobody keeps any lines."""

    def read(self, uid: str) -> KeptLog | None:
        """There are none."""
        return None

    def remove(self, uid: str) -> None:
        """There is nothing to delete."""
