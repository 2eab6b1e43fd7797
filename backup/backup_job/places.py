"""Where things are in the Job's pod. The controller mounts the volumes there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """The fixed places below one root: `/` in a pod, a folder of its own in a test.

    Attributes:
        root: The folder that all others are in.
    """

    root: Path = Path("/")

    @property
    def request(self) -> Path:
        """What is to be done, as JSON."""
        return self.root / "run/gameserver/request/request.json"

    @property
    def password(self) -> Path:
        """The password of the server's repository."""
        return self.root / "run/gameserver/key/password"

    @property
    def recovery(self) -> Path:
        """The operator's recovery key, in the backups' namespace alone."""
        return self.root / "run/gameserver/recovery/password"

    @property
    def token(self) -> Path:
        """The token for the API, in the Job that brings all servers back alone."""
        return self.root / "run/gameserver/api/token"

    @property
    def store(self) -> Path:
        """The folder of the store's credentials."""
        return self.root / "run/gameserver/store"

    @property
    def repositories(self) -> Path:
        """The store, if it is a folder. A server's Job has its own repository alone there, as `/store/<uid>`."""
        return self.root / "store"

    @property
    def world(self) -> Path:
        """The server's disk."""
        return self.root / "world"

    @property
    def source(self) -> Path:
        """A copy of a snapshot of the server's disk."""
        return self.root / "source"

    @property
    def scratch(self) -> Path:
        """An empty disk of the server's size."""
        return self.root / "scratch"

    @property
    def cache(self) -> Path:
        """For restic's cache; bounded."""
        return self.root / "cache"

    @property
    def temporary(self) -> Path:
        """For files that end with the pod."""
        return self.root / "tmp"

    @property
    def termination(self) -> Path:
        """What the pod says at its end; Kubernetes keeps 4096 bytes of it.

        https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
        """
        return self.root / "dev/termination-log"
