"""The agent's settings, read from the environment once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The settings that the chart passes to the agent.

    Attributes:
        node, pod, pod_uid, pod_ip, namespace: This pod and its node.
        servers_namespace: The namespace of the game servers.
        volume_folders: The node's folders that hold volumes; a volume anywhere else is refused.
        uid, gid: The game's user and group, which own uploaded files.
        host_root: Where the volume folders are mounted in this container.
        chroots, extrausers, state: The folders of the chroots, of sshd's user files, and of the agent's own state.
        guesses: How many wrong passwords a server may get at once.
        guess_seconds: Seconds until one more guess is allowed.
        sessions: How many sessions a server may have.
        connection_guesses: How many wrong passwords one connection may give. sshd's MaxAuthTries also counts the keys
            of a client's ssh-agent, so it has to be large.
        pod_logs: Where the folder with the logs of the node's pods is mounted; "" to keep no last lines.
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
    connection_guesses: int = 4
    pod_logs: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings. Raises KeyError or ValueError if one is missing or malformed."""
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
            pod_logs=environment.get("POD_LOGS", ""),
        )
