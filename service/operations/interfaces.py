"""What the operations ask of Kubernetes, of Helm, of file access and of the tokens, as types.

`cluster/reader.py` reads Kubernetes, `helm/releases.py` writes through Helm, `files/accounts.py` keeps who may log in
and `tokenstore/watched.py` who may call; the fakes of the tests stand in for all four.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from service.files.accounts import Account
from service.kube.types import Object
from service.servers.objects import Objects, RconPassword
from service.servers.values import Values
from service.tokens import Token
from service.tokenstore.records import Change, Records


class Cluster(Protocol):
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


class Releases(Protocol):
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


class Tokens(Protocol):
    """Who may call. Those that the operator has given out are only read; the others are records (tokenstore/records).

    Every method may raise errors.ClusterUnavailable, and those about records TokensNotKept.
    """

    def caller(self, authorization: str | None) -> Token:
        """The token in an Authorization header; raises Unauthorized without a valid one."""

    def operators(self) -> Sequence[Token]:
        """The tokens that the operator has given out."""

    def issued(self) -> Records:
        """The records as they are now."""

    def heard_of(self, key: str) -> bool:
        """Whether there was such a record a moment ago; this asks nobody."""

    def change(self, change: Change) -> None:
        """Write what `change(present records)` gives, all of it or nothing; it is called again where others wrote."""


class Accounts(Protocol):
    """File access. Every method may raise ClusterUnavailable, and all but remove FileAccessNotInstalled."""

    def host_keys(self) -> list[str]:
        """The fingerprints that customers compare: `SHA256:…`."""

    def account(self, id: int) -> Account:
        """The account of a server; one without credentials where there is none."""

    def change(self, id: int, change: Callable[[Account], Account]) -> Account:
        """Write `change(present account)` unless it is the same; gives it. May raise OperationInProgress."""

    def remove(self, id: int) -> None:
        """Take all access away; a server without an account is no error."""

    def node_local(self, claim: Object) -> bool:
        """Whether the disk is a folder of one node. One that is not bound yet may still become that."""
