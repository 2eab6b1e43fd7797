"""What the web layer asks of its two edges, as types.

`cluster.py` reads Kubernetes and `releases.py` writes through Helm; the fakes of the tests stand in for both.
Objects are plain dicts, as the Kubernetes API writes them in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

Object = dict[str, Any]
Values = dict[str, Any]

KEPT_SINCE = "gameserver/kept-since"
"""The annotation of a claim with the time at which its server was deleted."""
REUSED_SINCE = "gameserver/reused-since"
"""The annotation of a claim with the time at which a server was last made over it."""


class RconPassword(NamedTuple):
    """RCON's password, and when the Secret that holds it was made (RFC 3339)."""

    text: str
    since: str


class Objects(Protocol):
    """All that the cluster knows of one server; parts that do not exist are None or empty."""

    @property
    def id(self) -> int: ...
    @property
    def statefulset(self) -> Object | None: ...
    @property
    def pod(self) -> Object | None: ...
    @property
    def claim(self) -> Object | None: ...
    @property
    def services(self) -> Mapping[str, Object]:
        """The Services by object name."""

    @property
    def events(self) -> Sequence[Object]:
        """Those events of pod, StatefulSet and claim that a state may be read from, newest last."""

    @property
    def releases(self) -> Sequence[Object]:
        """The metadata of the release Secrets, oldest first; labels `status` and `version`."""

    @property
    def nodes(self) -> Mapping[str, Object]:
        """The nodes of the cluster by name, as of some seconds ago; empty where nobody knows them."""


class ClusterEdge(Protocol):
    """Kubernetes. Every method may raise errors.ClusterUnavailable."""

    def server(self, id: int) -> Objects:
        """The objects of one server."""

    def servers(self, limit: int, continue_: str | None) -> tuple[Sequence[Objects], str | None]:
        """A page of all servers, by id, and what to pass as `continue_` for the next page."""

    def service(self, name: str) -> Object | None: ...
    def rcon_password(self, id: int) -> RconPassword | None: ...
    def kept_disks(self) -> Sequence[Object]:
        """The claims that outlived their server, but for those that never had a volume."""

    def keep_disk(self, id: int, since: str) -> None:
        """Write on the claim, if there is one, since when it outlives its server."""

    def reuse_disk(self, id: int, since: str) -> None:
        """Write on the claim that a server has it again. An erase of it that began before then has no effect."""

    def erase_disk(self, id: int, confirm: Callable[[], None], *, unless_used: bool = False) -> None:
        """Begin to delete the claim as it was when `confirm()` did not raise; one that is gone already is no error.

        With `unless_used` nothing but a claim that never had a volume.

        May raise OperationInProgress, where another writes to the claim.
        """

    def disk_class_expandable(self, claim: Object) -> bool: ...
    def host(self, objects: Objects) -> str | None:
        """An address of the node that has the server's disk, None while there is none."""

    def pod_log_tail(self, id: int, lines: int, previous: bool) -> str: ...
    def ready(self) -> bool: ...


class ReleasesEdge(Protocol):
    """Helm. Each write may raise errors.OperationInProgress, TooManyOperations, OperationFailed and their kin."""

    def install(self, id: int, values: Values) -> None: ...
    def current(self, id: int) -> Values | None:
        """The values that the newest release was given, or None without a release."""

    def missing(self, id: int) -> list[str]:
        """The objects of the newest release that the cluster does not have, such as `Service server-4711`."""

    def change(self, id: int, change: Callable[[Values], Values]) -> bool:
        """Send `change(current values)`; False where that changes nothing, and nothing of the release is missing.

        A change that is not about the pod leaves a running one as it is.
        """

    def uninstall(self, id: int) -> bool: ...
    def locked(self, id: int) -> AbstractContextManager[None]:
        """Hold the server's Lease; the writes above go through within it."""

    def confirm(self, id: int) -> None:
        """Raises ClusterUnavailable unless the Lease that this thread holds is still its own, as Kubernetes has it."""
