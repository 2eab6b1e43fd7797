"""What a server's objects are called, and what the product writes on them. Pure."""

from __future__ import annotations

import re
from typing import Literal

ID = "gameserver/id"
"""The label with the server's id, on each of its objects."""
UID = "gameserver/uid"
"""The annotation of an account for files with the uid of the server that it is for."""
SERVER = "gameserver/server"
"""The annotation of StatefulSet and claim with what the server is wanted to be, as JSON."""
LAST_STOP = "gameserver/last-stop"
"""The annotation of a StatefulSet with how the server's last stop went, as JSON."""
KEPT_SINCE = "gameserver/kept-since"
"""The annotation of a claim with the time at which its server was deleted."""
REUSED_SINCE = "gameserver/reused-since"
"""The annotation of a claim with the time at which a server was last made over it."""

LARGEST_ID = 2**63 - 1
PortName = Literal["primary", "rcon", "sftp"]
PORTS: tuple[PortName, ...] = ("primary", "rcon", "sftp")

_NAME = re.compile(r"server-[1-9][0-9]{0,18}")


def release_name(id: int) -> str:
    """The release of server `id`. Nothing that helm could take for an option or a path ever gets past here."""
    name = server_name(id)
    if isinstance(id, bool) or not isinstance(id, int) or not _NAME.fullmatch(name) or id > LARGEST_ID:
        raise ValueError(f"not a server's id: {id!r}")
    return name


def server_name(id: int) -> str:
    """The StatefulSet, the claim and the game's Service; also the user and the account for its files."""
    return f"server-{id}"


def pod_name(id: int) -> str:
    """The only pod of the StatefulSet."""
    return f"server-{id}-0"


def rcon_name(id: int) -> str:
    """The Secret with RCON's password, and the Service of a private RCON."""
    return f"server-{id}-rcon"


def sftp_name(id: int) -> str:
    """The Service of the server's files."""
    return f"server-{id}-sftp"


def service_names(id: int) -> tuple[str, str, str]:
    """The Services that a server may have: the game's own, and those of a private RCON and of file access."""
    return server_name(id), rcon_name(id), sftp_name(id)


def services_with(port: PortName, id: int) -> tuple[str, ...]:
    """The Services that may have the port, the likely one first. RCON has its own only where it is private."""
    return {
        "primary": (server_name(id),),
        "rcon": (server_name(id), rcon_name(id)),
        "sftp": (sftp_name(id),),
    }[port]
