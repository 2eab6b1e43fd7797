"""versitygw, an S3 server over a folder, on loopback unless a pod must reach it: the store of backups in tests."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from local import binaries
from tests.support.gunicorn import free_ports
from tests.support.waiting import until

BUCKET = "worlds"


@dataclass
class S3:
    """An S3 server that a test may stop and start again; its bucket stays.

    Attributes:
        folder: Where it keeps objects, below the bucket's name, and what else it writes.
        access, secret: Its credentials.
        port: Its port.
        host: Its address.
        within: The command that runs it, such as one that enters another network.
    """

    folder: Path
    access: str = "backups"
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = field(default_factory=lambda: free_ports(1)[0])
    host: str = "127.0.0.1"
    within: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://{self.host}:{self.port}"

    @property
    def objects(self) -> Path:
        """The bucket as a folder."""
        return self.folder / "objects" / BUCKET

    def start(self) -> None:
        """Start it, and wait until it answers."""
        for folder in (self.objects, self.folder / "metadata"):
            folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.within, str(binaries.s3()), "--quiet", "--port", f"{self.host}:{self.port}", "posix"]
                # Otherwise in extended attributes, which a tmpfs may not have.
                + ["--sidecar", str(self.folder / "metadata"), str(self.folder / "objects")],
                env={**os.environ, "ROOT_ACCESS_KEY": self.access, "ROOT_SECRET_KEY": self.secret},
                stdout=log,
                stderr=log,
            )
        until(self._listens, 30, lambda: (self.folder / "log").read_text(errors="replace"))

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def stop(self) -> None:
        """End it, as a kill does."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def credentials(self) -> str:
        """The file that AWS_SHARED_CREDENTIALS_FILE names."""
        return f"[default]\naws_access_key_id = {self.access}\naws_secret_access_key = {self.secret}\n"

    def store(self, prefix: str = "") -> dict[str, str]:
        """The store of a Job's request."""
        return {"kind": "s3", "endpoint": self.endpoint, "bucket": BUCKET, "prefix": prefix}


@contextmanager
def s3(folder: Path, host: str = "127.0.0.1", within: tuple[str, ...] = ()) -> Iterator[S3]:
    """A running S3 server that keeps its objects in `folder`; see S3."""
    server = S3(folder, host=host, within=within)
    try:
        server.start()
        yield server
    finally:
        server.stop()
