"""Applies a plan to this node: chroots, mounts, users, keys and connections."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from disk_agent.mounts import Chroots, NotMounted
from disk_agent.objects import Account
from disk_agent.plan import Access
from disk_agent.settings import Settings
from disk_agent.sshd import connections, users
from disk_agent.sshd.sockets import Sockets

log = logging.getLogger(__name__)


class Node:
    """Applies plans. Everything that was applied is recorded in files, so a new agent continues from there.

    `applied/<id>` holds the access that a server was last given in full. It is rewritten only after the sessions that
    lost something have ended, so after a crash in between, the next agent ends them again.
    """

    def __init__(self, settings: Settings, sockets: Sockets) -> None:
        self._settings = settings
        self._sockets = sockets
        self._chroots = Chroots(Path(settings.chroots), Path(settings.host_root))
        self._keys = Path(settings.state) / "keys"
        self._applied = Path(settings.state) / "applied"
        self._extrausers = Path(settings.extrausers)
        # Why servers have no access, by id: each reason is logged once.
        self._reasons: dict[str, str] = {}

    def apply(self, accesses: Mapping[str, Access], slowed: frozenset[str]) -> bool:
        """Apply a plan once.

        The order makes it safe: first, removed credentials no longer allow new logins; then their sessions end; then
        the disk is unmounted. A disk that has changed is unmounted in this pass and mounted again in the next. So is
        one that the node has mounted anew: while a session or a mount here holds the old file system, its device stays.
        A disk that the node has not mounted yet is not tried again: `mounts.changes` tells when it is mounted.

        Args:
            accesses: The accesses to offer, by server id.
            slowed: The servers whose passwords sshd is to refuse for now.

        Returns:
            False if something failed, or is left for the next pass.
        """
        before = self._applied_accesses()
        offered = {
            server: access
            for server, access in accesses.items()
            if server not in before or before[server].folder == access.folder
        }
        complete = len(offered) == len(accesses)
        reasons = {}
        for server, access in list(offered.items()):
            try:
                if self._chroots.ensure(server, access.folder, is_mount=access.is_mount):
                    self._sockets.bind(server, self._chroots.chroot(server) / "dev" / "log")
                    continue
                reasons[server] = "the node has mounted it anew"
                complete = False
            except NotMounted as error:
                reasons[server] = str(error)
            except OSError as error:
                reasons[server] = str(error)
                complete = False
            del offered[server]
        self._log_reasons(reasons)
        self._write_users(offered, slowed)

        removed = (before.keys() | self._chroots.servers()) - offered.keys()
        reduced = {
            server
            for server, access in offered.items()
            if server in before and users.credential_removed(before[server].account, access.account)
        }
        connections.close_all(removed | reduced, self._settings.uid)
        for server in removed:
            complete = self._remove(server) and complete
        for server, access in offered.items():
            if before.get(server) != access:
                _write(self._applied / server, json.dumps(asdict(access)), 0o600)
                log.info("access set", extra={"fields": {"server": int(server), "ended": server in reduced}})
        return complete

    def _log_reasons(self, reasons: dict[str, str]) -> None:
        for server, reason in reasons.items():
            if self._reasons.get(server) != reason:
                log.warning("disk not mounted", extra={"fields": {"server": int(server), "error": reason}})
        self._reasons = reasons

    def _write_users(self, offered: Mapping[str, Access], slowed: frozenset[str]) -> None:
        accounts = [offered[server].account for server in sorted(offered)]
        names = {f"server-{account.server}" for account in accounts}
        for path in self._keys.iterdir():
            if path.name not in names:
                path.unlink()
        for account in accounts:
            # sshd reads the keys as the user, and all users share one uid. Keys are public, and outside every chroot.
            _write(self._keys / f"server-{account.server}", users.authorized_keys(account), 0o644)
        _write(self._extrausers / "group", users.group(self._settings.gid), 0o644)
        _write(self._extrausers / "shadow", users.shadow(accounts, slowed), 0o600)
        _write(self._extrausers / "passwd", users.passwd(accounts, self._settings.uid, self._settings.gid), 0o644)

    def _remove(self, server: str) -> bool:
        self._sockets.close(server)
        try:
            self._chroots.remove(server)
        except OSError as error:
            log.warning("disk not unmounted", extra={"fields": {"server": int(server), "error": str(error)}})
            return False
        (self._applied / server).unlink(missing_ok=True)
        log.info("access removed", extra={"fields": {"server": int(server)}})
        return True

    def _applied_accesses(self) -> dict[str, Access]:
        accesses = {}
        for path in self._applied.iterdir():
            if not path.name.isdigit():  # an agent died while writing it
                path.unlink()
                continue
            record = json.loads(path.read_text())
            account = Account(**{**record["account"], "keys": tuple(record["account"]["keys"])})
            accesses[path.name] = Access(account, record["folder"], record["is_mount"])
        return accesses


def _write(path: Path, text: str, mode: int) -> None:
    """Replace a file atomically, so that sshd reads either the old text or the new. An equal file is left alone."""
    try:
        if path.read_text() == text:
            return
    except FileNotFoundError:
        pass
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
    new.rename(path)
