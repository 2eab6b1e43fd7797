"""The agent's settings, read from the environment once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What the chart tells the agent.

    volume_folders are the node's folders that hold volumes; a volume anywhere else is refused.
    host_root is where those folders are mounted in this container.
    uid and gid are the game's: what is uploaded belongs to them.
    """

    node: str
    pod: str
    pod_uid: str
    pod_ip: str
    namespace: str
    servers_namespace: str
    volume_folders: tuple[str, ...]
    uid: int
    gid: int
    host_root: str = "/host"
    chroots: str = "/srv/sftp"
    extrausers: str = "/var/lib/extrausers"
    state: str = "/run/sftp"
    guesses: int = 10
    guess_seconds: float = 10.0
    sessions: int = 20
    # Wrong passwords that one connection may give. sshd's MaxAuthTries counts the keys of a client's agent too, so it
    # has to be large.
    connection_guesses: int = 4

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Raises KeyError or ValueError when the chart left something out."""
        return cls(
            node=environment["NODE_NAME"],
            pod=environment["POD_NAME"],
            pod_uid=environment["POD_UID"],
            pod_ip=environment["POD_IP"],
            namespace=environment["POD_NAMESPACE"],
            servers_namespace=environment["SERVERS_NAMESPACE"],
            volume_folders=tuple(folder for folder in environment["VOLUME_FOLDERS"].split(":") if folder),
            uid=int(environment["GAME_UID"]),
            gid=int(environment["GAME_GID"]),
            guesses=int(environment.get("PASSWORD_GUESSES", "10")),
            guess_seconds=float(environment.get("PASSWORD_GUESS_SECONDS", "10")),
            sessions=int(environment.get("SESSIONS_PER_SERVER", "20")),
        )
