"""Brings this node in step with a plan: chroots, mounts, users, keys and sessions."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from disk_agent.mounts import Chroots
from disk_agent.objects import Account
from disk_agent.plan import Access
from disk_agent.settings import Settings
from disk_agent.sshd import connections, users
from disk_agent.sshd.sockets import Sockets

log = logging.getLogger(__name__)


class Node:
    """The node's side of it. All that was done stands in files, so a new agent goes on from there.

    `applied/<id>` holds the access that a server was last given in full. It is rewritten only after the
    sessions that lost something have been ended, so a crash in between repeats that.
    """

    def __init__(self, settings: Settings, sockets: Sockets) -> None:
        self._settings = settings
        self._sockets = sockets
        self._chroots = Chroots(Path(settings.chroots), Path(settings.host_root))
        self._keys = Path(settings.state) / "keys"
        self._applied = Path(settings.state) / "applied"
        self._extrausers = Path(settings.extrausers)

    def apply(self, wanted: Mapping[str, Access], slowed: frozenset[str]) -> bool:
        """One pass; false when something could not be done, or waits for the next pass.

        The order is what makes it safe: first no new login is possible with what is taken away, then the
        sessions end, then the disk goes. A disk that has changed is first taken away, then given anew.
        """
        before = self._last()
        offered = {
            server: access
            for server, access in wanted.items()
            if server not in before or before[server].folder == access.folder
        }
        complete = len(offered) == len(wanted)
        for server, access in list(offered.items()):
            try:
                self._chroots.ensure(server, access.folder)
                self._sockets.bind(server, self._chroots.chroot(server) / "dev" / "log")
            except OSError as error:
                log.warning("disk not mounted", extra={"fields": {"server": int(server), "error": str(error)}})
                del offered[server]
                complete = False
        self._write_users(offered, slowed)

        gone = (before.keys() | self._chroots.servers()) - offered.keys()
        taken = {
            server
            for server, access in offered.items()
            if server in before and users.something_taken(before[server].account, access.account)
        }
        connections.end(gone | taken, self._settings.uid)
        for server in gone:
            complete = self._remove(server) and complete
        for server, access in offered.items():
            if before.get(server) != access:
                _write(self._applied / server, json.dumps(asdict(access)), 0o600)
                log.info("access set", extra={"fields": {"server": int(server), "ended": server in taken}})
        return complete

    def _write_users(self, offered: Mapping[str, Access], slowed: frozenset[str]) -> None:
        accounts = [offered[server].account for server in sorted(offered)]
        names = {f"server-{account.server}" for account in accounts}
        for path in self._keys.iterdir():
            if path.name not in names:
                path.unlink()
        for account in accounts:
            # sshd reads the keys as the user, whose uid all share. They are public, and out of every chroot.
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

    def _last(self) -> dict[str, Access]:
        found = {}
        for path in self._applied.iterdir():
            if not path.name.isdigit():  # a file that a dead agent was writing
                path.unlink()
                continue
            record = json.loads(path.read_text())
            account = Account(**{**record["account"], "keys": tuple(record["account"]["keys"])})
            found[path.name] = Access(account, record["folder"])
        return found


def _write(path: Path, text: str, mode: int) -> None:
    """Replace a file at once, so that sshd reads the old text or the new; leave an equal one alone."""
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
