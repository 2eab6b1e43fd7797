"""The names of a server's objects, and the labels and annotations on them. Pure."""

from __future__ import annotations

import re
from typing import Literal

ID = "gameserver/id"
"""Label of each of a server's objects: the server's id."""
UID = "gameserver/uid"
"""Annotation of an SFTP account: the uid of its server."""
SERVER = "gameserver/server"
"""Annotation of StatefulSet and claim: the server's spec, as JSON."""
BACKUP_JOB = "gameserver/backup-job"
"""Label of the Jobs of backups, their pods and their Secrets: the server's id, or `store`."""
LAST_STOP = "gameserver/last-stop"
"""Annotation of a StatefulSet: how the server's last stop went, as JSON."""
OPERATION = "gameserver/operation"
"""Annotation of a StatefulSet: the operation that will do something with the server, as JSON."""
SCHEDULES = "gameserver/schedules"
"""Annotation of a StatefulSet: the server's schedules, as JSON."""
SCHEDULE_RUNS = "gameserver/schedule-runs"
"""Annotation of a StatefulSet: the latest run of each schedule, as JSON."""
IDLE = "gameserver/idle"
"""Annotation of a StatefulSet: what idle stop makes of the running server, as JSON."""
SAVE_OWED = "gameserver/save-owed"
"""Annotation of a StatefulSet: that the game was told to hold its world still and is to be let go, as JSON."""
KEPT_SINCE = "gameserver/kept-since"
"""Annotation of a claim: when its server was deleted."""
REUSED_SINCE = "gameserver/reused-since"
"""Annotation of a claim: when a server was last created with it."""
NEW_SINCE = "gameserver/new-since"
"""Annotation of a claim: when the chart made it for a server whose claim was missing."""

LARGEST_ID = 2**63 - 1
PortName = Literal["primary", "rcon", "sftp"]
PORTS: tuple[PortName, ...] = ("primary", "rcon", "sftp")

_NAME = re.compile(r"server-[1-9][0-9]{0,18}")


def release_name(id: int) -> str:
    """The name of the server's release.

    Raises ValueError unless `id` is a valid id, so that helm never gets a name that it could read as an option or a
    path.
    """
    name = server_name(id)
    if isinstance(id, bool) or not isinstance(id, int) or not _NAME.fullmatch(name) or id > LARGEST_ID:
        raise ValueError(f"not a server's id: {id!r}")
    return name


def server_name(id: int) -> str:
    """The name of the StatefulSet, the claim, the game's Service, and the SFTP user and account."""
    return f"server-{id}"


def pod_name(id: int) -> str:
    """The name of the StatefulSet's only pod."""
    return f"server-{id}-0"


def disk_job_name(id: int) -> str:
    """The name of the Job that makes the disk before the first start."""
    return f"server-{id}-disk"


def rcon_name(id: int) -> str:
    """The name of the Secret with RCON's password, and of the Service for a private RCON."""
    return f"server-{id}-rcon"


def econ_name(id: int) -> str:
    """The name of the Secret with the password of the external console."""
    return f"server-{id}-econ"


def sftp_name(id: int) -> str:
    """The name of the Service for the server's files."""
    return f"server-{id}-sftp"


def service_names(id: int) -> tuple[str, str, str]:
    """The names of the Services that a server may have: for the game, a private RCON, and its files."""
    return server_name(id), rcon_name(id), sftp_name(id)


def services_with(port: PortName, id: int) -> tuple[str, ...]:
    """The names of the Services that may have the port, most likely first. Only a private RCON has its own."""
    return {
        "primary": (server_name(id),),
        "rcon": (server_name(id), rcon_name(id)),
        "sftp": (sftp_name(id),),
    }[port]
