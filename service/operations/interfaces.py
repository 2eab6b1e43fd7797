"""The interfaces through which operations use Kubernetes, Helm, tokens and file access.

`cluster/reader.py` implements Cluster, `helm/releases.py` Releases, `tokenstore/watched.py` Tokens,
`webhooks/store.py` Webhooks, `files/accounts.py` Accounts and `files/keptlogs.py` KeptLogs. Tests use the fakes in
tests/support instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from service.console.stdin import Attachment
from service.files.accounts import Account
from service.kube.types import Object
from service.logs.kept import KeptLog
from service.records.secret import Change, Records
from service.records.store import RecordStore
from service.servers.consumption import Consumption
from service.servers.objects import Objects, RconPassword
from service.servers.usage import Usage
from service.servers.values import Values
from service.tokens import Token

Listener = Callable[[int, str, Object | None, Object, bool], None]
"""Called with each change of a server's objects: the server's id, what changed (`statefulset`, `pod`, `claim`,
`service`, `release` or `event`), the earlier object if there was one, the object, and whether it was deleted."""

RecordStores = Callable[[str], RecordStore]
"""The store of a kind of record, such as `operation`."""


class Cluster(Protocol):
    """Reads Kubernetes, writes to claims and makes disks. Every method may raise errors.ClusterUnavailable."""

    def server(self, id: int) -> Objects:
        """The objects of one server."""

    def addressed(self, id: int) -> Objects:
        """The objects of one server, for questions about the address of the game.

        The game's Service is read now. The others are as the watches have them, if these know the same Service and a
        host for the disk's node; otherwise all are read now.
        """

    def servers(
        self, limit: int, continue_: str | None, wanted: Callable[[Objects], bool] | None = None
    ) -> tuple[Sequence[Objects], str | None]:
        """A page of at most `limit` servers by id, and the `continue_` of the next page, or None.

        With `wanted`, only of those servers for which it is true: the others leave no trace in the answer.
        """

    def known(self, id: int) -> Objects | None:
        """The objects of one server as the watches have them; None if there is no such server. This sends no request.

        Raises ClusterUnavailable while the watches are not complete.
        """

    def known_servers(self) -> Iterator[Objects]:
        """The objects of all servers, by id, as the watches have them; see `known`."""

    def known_ids(self) -> list[int]:
        """The ids of all servers, in order, as the watches have them; see `known`."""

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with each change from now on, in the thread of the watch, which waits for it."""

    def annotate(self, id: int, uid: str, name: str, change: Callable[[str | None], str | None]) -> str | None:
        """Write `change(current text)` to an annotation of the server's StatefulSet, unless another has written there.

        The annotation is not part of the release: no change of the server removes it, and it ends with the server.

        Args:
            id: The server's id.
            uid: The server's uid; a server that has the id since then is left alone.
            name: The annotation.
            change: Takes the text, None if there is none, and returns the new one, None to remove it. After a conflict
                it is called again. If it returns what is there, nothing is written.

        Returns:
            What is written there now.

        Raises:
            ServerNotFound: There is no server with this id and uid.
            OperationInProgress: Others kept writing at the same time.
        """

    def service(self, name: str) -> Object | None:
        """The Service with this name."""

    def rcon_password(self, id: int) -> RconPassword | None:
        """The password in the server's Secret, and since when it is there."""

    def econ_password(self, id: int) -> str | None:
        """The password of the game's external console, in the server's Secret; None if there is none."""

    def attached(self, id: int, pod: str, seconds: float) -> AbstractContextManager[Attachment]:
        """A connection to the standard input of the server's game, and to what it writes from then on.

        Args:
            id: The server's id.
            pod: The uid of its pod; another one gets nothing.
            seconds: How long it may take to connect.

        Raises:
            TimeoutError: It took longer.
            OSError: The game cannot be reached.
        """

    def kept_disks(self) -> Sequence[Object]:
        """The claims without a server, except those that never had a volume."""

    def disks(self) -> Sequence[tuple[Object, Usage | None]]:
        """The claims of all servers and kept disks, some moments old, each with how full its disk is."""

    def usage(self, claim: Object | None) -> Usage | None:
        """How full the claim's disk is; None if nobody has said so. This sends no request to Kubernetes."""

    def keep_disk(self, id: int, since: str) -> None:
        """Record on the claim, if there is one, that its disk is kept since the time `since` (RFC 3339)."""

    def reuse_disk(self, id: int, since: str) -> None:
        """Record on the claim that a server uses it since `since` (RFC 3339); an erase begun before has no effect.

        The claim becomes the release's, whoever has made it. May raise OperationInProgress.
        """

    def volume(self, name: str) -> Object | None:
        """The PersistentVolume with this name."""

    def disk_job(self, id: int) -> Objects:
        """The Job that makes the server's disk, as the `statefulset`, with its pod and the server's claim."""

    def make_disk(self, job: Object) -> None:
        """Create the Job of `servers.diskjob.disk_job`, unless there is one with its name."""

    def erase_disk(self, id: int, confirm: Callable[[], None], *, unless_used: bool = False) -> None:
        """Start to delete the claim; a missing claim is no error.

        Only the version that was read before `confirm()` was called is deleted.

        Args:
            id: The server's id.
            confirm: Raises if the caller no longer holds the server's Lease.
            unless_used: Delete the claim only if it never had a volume.

        Raises:
            OperationInProgress: Someone else is writing to the claim.
        """

    def disk_has_snapshots(self, claim: Object) -> bool:
        """Whether the storage of the claim's volume can make snapshots of it."""

    def disk_class_expandable(self, claim: Object) -> bool:
        """Whether the claim's storage class allows its volumes to grow."""

    def host(self, objects: Objects, families: Sequence[str] = ()) -> str | None:
        """An address of the node that has the server's disk, or None while no node has it.

        Args:
            objects: The server's objects.
            families: The families of the addresses at which the port answers, `IPv4` or `IPv6`, the preferred one
                first; all if it is empty. None of a node that has no address of these.
        """

    def consumption(self, objects: Objects) -> Consumption | None:
        """What the server's game uses, as last measured; None if that is unknown. This waits for no request."""

    def log_text(self, id: int, pod: str, *, tail: int | None, since: int | None, previous: bool = False) -> str | None:
        """The game's log with timestamps, of its running container or of the last that ended.

        At most `logs.lines.MOST_BYTES` and one byte more, from the beginning of what is asked for.

        Args:
            id: The server's id.
            pod: The uid of its pod; nothing is read of another one.
            tail: How many lines from the end; None for all.
            since: From when, in seconds since 1970; None for everything.
            previous: Whether to read the log of the container before.

        Returns:
            The text; None if there is no such container that has a log.
        """

    def log_stream(
        self, id: int, *, tail: int | None, since: int | None, follow: bool = True, previous: bool = False
    ) -> AbstractContextManager[Iterator[bytes] | None]:
        """The game's log with timestamps as it is written, until its container ends; None if there is no log.

        It also ends when nothing has been written for a minute. It is of the pod that has the server's name: whoever
        reads asks for `pod_run` before and after it is opened.

        Args:
            id: The server's id.
            tail: How many lines from the end; None for all.
            since: From when, in seconds since 1970; None for everything.
            follow: Whether it goes on; otherwise it ends with what has been written.
            previous: Whether to read the log of the container before.
        """

    def pod_run(self, id: int) -> tuple[str, int] | None:
        """The uid of the server's pod, and how often its game has restarted.

        None if there is no pod of the StatefulSet that has the id now. One that a deleted server has left is none.
        """

    def pod_log_tail(self, id: int, pod: str, lines: int, previous: bool) -> str:
        """The last lines of the log of the game in the pod with this uid; "" if there are none.

        With `previous`, of the container before the current one.
        """

    def ready(self) -> bool:
        """Whether Kubernetes answers."""


class Releases(Protocol):
    """Writes through Helm. Each write may raise OperationInProgress, TooManyOperations or OperationFailed."""

    def install(self, id: int, values: Values) -> None:
        """Install the server's release."""

    def current(self, id: int) -> Values | None:
        """The values of the newest revision, or None without a release."""

    def missing(self, id: int) -> list[str]:
        """The objects of the newest revision that the cluster does not have, such as `Service server-4711`."""

    def change(self, id: int, change: Callable[[Values], Values]) -> bool:
        """Upgrade the release to `change(current values)`.

        A change that does not affect the pod leaves a running pod alone.

        Returns:
            False if there was nothing to do: the values are the same, and no object of the release is missing.
        """

    def upgrade(self, id: int) -> bool:
        """Bring the release to this API's chart, with the same values. A running game restarts if its pod must change.

        Returns:
            False if there was nothing to do: it has this chart already, its pod too, and no object is missing.
        """

    def uninstall(self, id: int) -> bool:
        """Uninstall the release; False if there was none."""

    def locked(self, id: int, wait: float = 0.0) -> AbstractContextManager[None]:
        """Hold the server's Lease; the writes above work inside this context.

        With `wait`, wait for it up to so many seconds, and get it before all who do not wait.
        """

    def confirm(self, id: int) -> None:
        """Raises ClusterUnavailable unless Kubernetes confirms that this thread still holds the server's Lease."""


class Tokens(Protocol):
    """The tokens that may call the API: the operator's, and those that the API issues and keeps as records.

    Every method may raise errors.ClusterUnavailable; `issued` and `change` may raise TokensNotKept.
    See tokenstore/records.py for the records.
    """

    def caller(self, authorization: str | None) -> Token:
        """The token in an Authorization header; raises Unauthorized without a valid one."""

    def operators(self) -> Sequence[Token]:
        """The operator's tokens."""

    def issued(self) -> Records:
        """The current records."""

    def heard_of(self, key: str) -> bool:
        """Whether the record existed a moment ago; this sends no request to Kubernetes."""

    def change(self, change: Change) -> None:
        """Write the result of `change(current records)`, all or nothing; after a conflict, `change` is called again."""


class KeptRecords(Protocol):
    """Records in one Secret. Every method may raise ClusterUnavailable and OperationFailed."""

    def read(self) -> Records:
        """The current records."""

    def change(self, change: Change) -> None:
        """Write the result of `change(current records)`, all or nothing; after a conflict, `change` is called again."""


class Webhooks(Protocol):
    """Where webhooks are kept: what they are, and apart from it, what they are signed with (by their uids)."""

    @property
    def config(self) -> KeptRecords: ...
    @property
    def secrets(self) -> KeptRecords: ...


class KeptLogs(Protocol):
    """The last lines of games that have ended. Every method may raise ClusterUnavailable."""

    def read(self, uid: str) -> KeptLog | None:
        """The last lines of the server with this uid, of the last run whose end an agent has seen; None without any."""

    def remove(self, uid: str) -> None:
        """Delete a server's last lines; none is no error."""


class Accounts(Protocol):
    """SFTP accounts. Every method may raise ClusterUnavailable, and all but `remove` FileAccessNotInstalled."""

    def host_keys(self) -> list[str]:
        """The fingerprints that customers compare: `SHA256:…`."""

    def account(self, id: int) -> Account:
        """The server's account; an account without credentials if there is none."""

    def change(self, id: int, change: Callable[[Account], Account]) -> Account:
        """Write `change(current account)` if it differs, and return it. May raise OperationInProgress."""

    def remove(self, id: int) -> None:
        """Delete the server's account; a missing account is no error."""

    def node_local(self, claim: Object) -> bool:
        """Whether the disk is a folder on one node; True for an unbound claim too, because it may still become one."""
