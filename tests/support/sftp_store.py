"""An SFTP server on loopback, over a folder: a store of backups in tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh


@dataclass(frozen=True)
class SftpStore:
    """A running SFTP server.

    Attributes:
        port: Its port on 127.0.0.1.
        files: What a client needs: its key and the server's.
    """

    port: int
    files: dict[str, str]

    def store(self) -> dict[str, object]:
        """The store of a Job's request."""
        return {"kind": "sftp", "host": "127.0.0.1", "port": self.port, "user": "backups", "path": "/worlds"}


@contextmanager
def sftp_store(folder: Path) -> Iterator[SftpStore]:
    """Serve `folder` to one user with one key."""
    host, client = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    loop = asyncio.new_event_loop()

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host],
            authorized_client_keys=asyncssh.import_authorized_keys(client.export_public_key().decode()),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(folder).encode()),
        )

    acceptor = loop.run_until_complete(listen())
    port = acceptor.get_port()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    files = {
        "id_ed25519": client.export_private_key("openssh").decode(),
        "known_hosts": f"[127.0.0.1]:{port} {host.export_public_key('openssh').decode()}",
    }
    try:
        yield SftpStore(port, files)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_closed(acceptor))
        loop.close()


async def _closed(acceptor: asyncssh.SSHAcceptor) -> None:
    acceptor.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
