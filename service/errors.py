"""Everything that can go wrong, as exceptions with the text that a client of the API reads.

Raise one of these when an operation cannot continue. Only `web/problems.py` turns it into an RFC 9457
`application/problem+json` answer. The detail is written for the client. The cause (a helm message, a stack trace)
belongs in the log: chain it with `raise … from cause`, and never put it into the detail.

This module imports neither Flask nor a client library, so every other module can raise these errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

Errors = Mapping[str, Sequence[str]]
"""Messages by the name of the field that they are about."""

_TRY_AGAIN = "Try again after the number of seconds in `Retry-After`."


class StartupError(Exception):
    """The service cannot start with this configuration; the message names the file (and line) to fix."""


class Problem(Exception):
    """An error answer of the API.

    Attributes:
        slug: Names the kind. It is the last part of the answer's `type` and never changes.
        status: The HTTP status.
        title: A short statement, the same for every problem of this kind.
        explanation: What happened and what to do about it; the default for the detail.
        default_retry_after: After how many seconds the same request may succeed; None if waiting does not help.
    """

    slug: ClassVar[str] = "internal-error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    explanation: ClassVar[str] = (
        "The API failed unexpectedly. Its log has the cause under the request id of this answer."
    )
    default_retry_after: ClassVar[int | None] = None

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Errors | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Describe one occurrence.

        Args:
            detail: What happened this time; the explanation if None.
            errors: Messages by field.
            retry_after: Seconds for `Retry-After`, instead of the default of the kind.
            headers: More headers of the answer.
        """
        super().__init__(detail or self.explanation)
        self.detail = detail or self.explanation
        self.errors = {field: list(messages) for field, messages in errors.items()} if errors else None
        self.headers = dict(headers or {})
        seconds = retry_after if retry_after is not None else self.default_retry_after
        if seconds is not None:
            self.headers["Retry-After"] = str(seconds)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if PROBLEMS.setdefault(cls.slug, cls) is not cls:
            raise TypeError(f"{cls.__name__} needs a slug of its own: {cls.slug} is {PROBLEMS[cls.slug].__name__}'s")


PROBLEMS: dict[str, type[Problem]] = {Problem.slug: Problem}
"""Every kind of problem by its slug, in whichever module it is defined. The pages under /problems/ show them."""


# -- the request -------------------------------------------------------------------------------------------


class MalformedBody(Problem):
    slug = "malformed-body"
    status = 400
    title = "The body is not valid JSON"
    explanation = "Send a body with one JSON object, encoded as UTF-8."


class InvalidRequest(Problem):
    slug = "invalid-request"
    status = 422
    title = "The request is invalid"
    explanation = "A field is missing, unknown, of the wrong type or out of range. `errors` names the field."


class Unauthorized(Problem):
    slug = "unauthorized"
    status = 401
    title = "A valid bearer token is required"
    explanation = "The token is missing, unknown or expired. Send `Authorization: Bearer <token>` with a valid one."


class MissingScope(Problem):
    slug = "missing-scope"
    status = 403
    title = "The token does not allow this"
    explanation = (
        "The token is valid, but it lacks a scope that this call needs, or it is confined to other customers or "
        "servers. `detail` says which."
    )


class NotFound(Problem):
    slug = "not-found"
    status = 404
    title = "There is nothing at this path"
    explanation = "The path is unknown or has an invalid id. Ids are whole numbers from 1 to 9223372036854775807."


class OperationNotFound(Problem):
    slug = "operation-not-found"
    status = 404
    title = "There is no such operation"
    explanation = "There is no operation with this id for this token. Operations are kept for a day after their end."


class TokenNotFound(Problem):
    slug = "token-not-found"
    status = 404
    title = "There is no such token"
    explanation = "The API has issued no token with this name, or the token may do more than yours."


class TokenExists(Problem):
    slug = "token-exists"
    status = 409
    title = "A token with this name already exists"
    explanation = "Choose another name, or delete that token first. The API never shows an existing token again."


class TooManyTokens(Problem):
    slug = "too-many-tokens"
    status = 409
    title = "There are too many tokens"
    explanation = "The API keeps at most 1,000 tokens and login links. Delete some, or let them expire."


class LoginLinkGone(Problem):
    slug = "login-link-gone"
    status = 404
    title = "This login link does not work"
    explanation = "It was opened before, has expired or never existed. A login link opens once: ask for a new one."


class TokensNotKept(Problem):
    slug = "tokens-not-kept"
    status = 501
    title = "This API does not issue tokens"
    explanation = "It reads its tokens from a file (`TOKENS_FILE`) and has no Secret to store others in."


class WebhookNotFound(Problem):
    slug = "webhook-not-found"
    status = 404
    title = "There is no such webhook"
    explanation = "There is no webhook with this name, or your token may not see it."


class TooManyWebhooks(Problem):
    slug = "too-many-webhooks"
    status = 409
    title = "There are too many webhooks"
    explanation = "The API keeps at most 100 webhooks, and at most 5 of one customer. Delete one that nobody needs."


class WebhooksNotKept(Problem):
    slug = "webhooks-not-kept"
    status = 501
    title = "This API has no webhooks"
    explanation = "It has no Secrets to keep them in (`WEBHOOKS_SECRET` and `WEBHOOK_SECRETS_SECRET`)."


class ServerNotFound(Problem):
    slug = "server-not-found"
    status = 404
    title = "There is no such server"
    explanation = "No server with this id exists, or your token may not see it."


class PortNotFound(Problem):
    slug = "port-not-found"
    status = 404
    title = "The server has no such port"
    explanation = "The operator has turned this port off for this server."


class ObjectMissing(Problem):
    slug = "object-missing"
    status = 409
    title = "An object of the server is missing"
    explanation = (
        "Someone has deleted one of the server's Kubernetes objects; `detail` names it. To restore it, start the "
        "server, or send the request that created it again, unchanged."
    )


class BackupLocked(Problem):
    slug = "backup-locked"
    status = 409
    title = "The backup is locked"
    explanation = "Somebody has locked it so that it stays. Unlock it first."


class BackupsNotPossible(Problem):
    slug = "backups-not-possible"
    status = 409
    title = "This server cannot be backed up"
    explanation = (
        "The operator has no store for backups, and the storage of the server's disk cannot make snapshots. One of "
        "them is needed: see Backups in docs/operations.md."
    )


class TooManyBackups(Problem):
    slug = "too-many-backups"
    status = 429
    title = "There are too many backups of this server"
    explanation = (
        "One is being made, two were created within 10 minutes, or the server has as many as it may and none of them "
        "may go. `detail` says which; with `Retry-After`, waiting helps."
    )


class NoLog(Problem):
    slug = "no-log"
    status = 409
    title = "The server has no log now"
    explanation = (
        "The game has not been started, its container is still being made, or it has ended and nothing of its log is "
        "kept. Start the server, then send the request again. With `follow=true` the answer waits for the game's first "
        "line."
    )


class ReleaseMissing(Problem):
    slug = "release-missing"
    status = 409
    title = "The server's Helm release is missing"
    explanation = (
        "The server's objects exist, but someone has deleted its Helm release, which holds its desired state. The "
        "operator can create the server again over its disk: see docs/operations.md."
    )


class RconPasswordReplaced(Problem):
    slug = "rcon-password-replaced"
    status = 409
    title = "The game does not know its new RCON password yet"
    explanation = (
        "The password in its Secret was replaced while the game was running. A restart makes the game read the new one."
    )


class MethodNotAllowed(Problem):
    slug = "method-not-allowed"
    status = 405
    title = "This path does not support the method"
    explanation = "The `Allow` header lists the methods that the path supports."


class BodyTooLarge(Problem):
    slug = "body-too-large"
    status = 413
    title = "The body is too large"
    explanation = "The body of a request may have at most 64 KiB."


class UnsupportedMediaType(Problem):
    slug = "unsupported-media-type"
    status = 415
    title = "The body must be application/json"
    explanation = "Send the header `Content-Type: application/json`."


class AddressTooLong(Problem):
    slug = "address-too-long"
    status = 414
    title = "The URL is too long"
    explanation = "The first line of a request (method, path and query) may have at most 4094 bytes."


class HeadersTooLarge(Problem):
    slug = "headers-too-large"
    status = 431
    title = "The headers are too large"
    explanation = "A request may have at most 100 headers of at most 8190 bytes each."


class BadRequest(Problem):
    slug = "bad-request"
    status = 400
    title = "The request is not valid HTTP"
    explanation = "The API cannot read the request, because it breaks the rules of HTTP."


# -- the server --------------------------------------------------------------------------------------------


class ServerExists(Problem):
    slug = "server-exists"
    status = 409
    title = "A different server with this id already exists"
    explanation = "The existing server differs from this request. Change it with PATCH, or delete it first."


class Suspended(Problem):
    slug = "server-suspended"
    status = 403
    title = "The server is suspended"
    explanation = (
        "The shop or the operator has suspended the server; `detail` has the reason. Until they end that, only a token "
        "with the scope `server:suspend` may do this."
    )


class ScheduleNotFound(Problem):
    slug = "schedule-not-found"
    status = 404
    title = "There is no such schedule"
    explanation = "The server has no schedule with this name."


class TooManySchedules(Problem):
    slug = "too-many-schedules"
    status = 409
    title = "There are too many schedules"
    explanation = "A server has at most 20 schedules. Delete one first."


class ScheduleRunning(Problem):
    slug = "schedule-running"
    status = 409
    title = "The schedule is already running"
    explanation = "A schedule runs once at a time. Wait until this run has ended, or abort it."


class SchedulePaused(Problem):
    slug = "schedule-paused"
    status = 409
    title = "The schedule is paused"
    explanation = "The token that set it no longer allows what it does; `detail` says why. To go on, set it again."


class OperationInProgress(Problem):
    slug = "operation-in-progress"
    status = 409
    title = "Another operation on this server is in progress"
    explanation = _TRY_AGAIN
    default_retry_after = 1


class BackupNotFound(Problem):
    slug = "backup-not-found"
    status = 404
    title = "There is no such backup"
    explanation = "There is no backup with this id, or your token may not see it."


class BackupNotUsable(Problem):
    slug = "backup-not-usable"
    status = 409
    title = "The backup cannot be restored"
    explanation = "It is not finished, has failed, or is being deleted. `detail` says which."


class OtherGame(Problem):
    slug = "other-game"
    status = 409
    title = "The world is of another game"
    explanation = "A new server can have the world of a server or a backup of the same game only."


class NothingToUndo(Problem):
    slug = "nothing-to-undo"
    status = 409
    title = "There is no restore to undo"
    explanation = "The world of before a restore is kept for some days. Afterwards the restore cannot be undone."


class IdempotencyKeyReused(Problem):
    slug = "idempotency-key-reused"
    status = 409
    title = "The Idempotency-Key was used for another request"
    explanation = (
        "Within the last day, this token has sent another request with the same Idempotency-Key. Use a new one."
    )


class DiskKept(Problem):
    slug = "disk-kept"
    status = 409
    title = "There is a kept disk with this id"
    explanation = (
        "It belonged to an earlier server with this id. "
        'Send `"disk": "reuse"` to keep its contents, or `"disk": "erase"` to start with an empty disk.'
    )


class DiskBeingErased(Problem):
    slug = "disk-being-erased"
    status = 409
    title = "The previous disk is still being erased"
    explanation = _TRY_AGAIN
    default_retry_after = 5


class DiskBeingDeleted(Problem):
    slug = "disk-being-deleted"
    status = 409
    # No Retry-After, because waiting does not help.
    title = "Somebody has deleted the claim of the server's disk"
    explanation = (
        "Kubernetes erases the disk as soon as no game runs on it. So the API refuses a stop, a restart and all else "
        "that would end the game. Only the operator can still keep the disk: see docs/operations.md."
    )


class EventsReset(Problem):
    slug = "events-reset"
    status = 409
    title = "The log of events has begun again"
    explanation = (
        "The cursor is beyond the newest event, because the operator has deleted the log or restored an older one. "
        "Read the states of your servers, and then the events without `after`."
    )


class DiskNotUsable(Problem):
    slug = "disk-not-usable"
    status = 409
    title = "The disk with this id cannot be used as it is"
    explanation = (
        "There is a volume claim with this id that the API did not make, or that has lost its volume. `detail` says "
        "what is wrong with it and what the operator can do: see docs/operations.md."
    )


class DiskCannotShrink(Problem):
    slug = "disk-cannot-shrink"
    status = 409
    title = "A disk cannot become smaller"
    explanation = "Kubernetes can grow a disk, never shrink it."


class DiskCannotGrow(Problem):
    slug = "disk-cannot-grow"
    status = 409
    title = "This disk cannot grow"
    explanation = (
        "Its storage class does not allow volumes to grow, or the disk does not exist yet. `errors` says which."
    )


class DiskNotNodeLocal(Problem):
    slug = "disk-not-node-local"
    status = 409
    title = "The files on this disk are not available over SFTP"
    explanation = (
        "File access works only on volumes that are a folder of one node (hostPath or local with node affinity, or of "
        "the driver disk-driver.gameserver). The storage class of this server's disk attaches volumes another way."
    )


class DiskNotMade(Problem):
    slug = "disk-not-made"
    status = 409
    # No Retry-After, because waiting alone does not create the disk.
    title = "The server has no disk yet"
    explanation = (
        "The cluster creates the disk when a password or a key for its files is first set (`PUT …/sftp`), or when the "
        "server first starts. From then on, its files are available even while the server is stopped. Do one of them, "
        "then send the request again."
    )


class EulaNotAccepted(Problem):
    slug = "eula-not-accepted"
    status = 409
    title = "The game's licence has not been accepted"
    explanation = (
        "Before anyone can create servers of this game, the operator must accept its end user licence agreement in "
        "the values of the API's chart (`acceptedEulas`)."
    )


class OperationFailed(Problem):
    slug = "operation-failed"
    status = 500
    title = "The operation failed"
    explanation = (
        f"Helm could not complete the operation. {_TRY_AGAIN} The API's log has Helm's message under the request id."
    )
    default_retry_after = 10


class RefusedByCluster(Problem):
    slug = "refused-by-cluster"
    # Not 409, because the request is valid: there is nothing in it that the caller could fix.
    status = 503
    title = "The cluster refused the change"
    explanation = (
        "A rule of the cluster (a quota, an admission policy, a conflicting object) blocked the change. The operator "
        "must fix this. The API's log has the cluster's message under the request id."
    )
    default_retry_after = 30


class FieldConflict(Problem):
    slug = "field-conflict"
    status = 409
    title = "A field of this server is managed by another tool"
    explanation = (
        "A tool other than Helm, such as `kubectl scale`, has taken over a field of the server's objects. Nothing was "
        "changed. The operator can give it back to Helm: see docs/operations.md."
    )


# -- the cluster -------------------------------------------------------------------------------------------


class TooManyOperations(Problem):
    slug = "too-many-operations"
    status = 429
    title = "There are too many operations at once"
    explanation = f"No slot for the operation became free within 10 seconds. {_TRY_AGAIN}"
    default_retry_after = 5


class TooManyFollowers(Problem):
    slug = "too-many-followers"
    status = 429
    title = "Too many clients follow logs or starts"
    explanation = (
        "A token, and a replica, can follow only so many logs and starts at once; `detail` says which limit it was."
    )
    default_retry_after = 5


class FileAccessNotInstalled(Problem):
    slug = "file-access-not-installed"
    status = 501
    title = "File access is not installed"
    explanation = "The operator has not installed file access (the chart gameserver-sftp) for this API."


class ClusterUnavailable(Problem):
    slug = "cluster-unavailable"
    status = 503
    title = "Kubernetes does not answer"
    explanation = f"The API got no answer from Kubernetes. Nothing was lost. {_TRY_AGAIN}"
    default_retry_after = 5


class ClusterContended(Problem):
    slug = "cluster-contended"
    status = 503
    title = "Too many clients write to the cluster at once"
    explanation = (
        "Other clients changed the same object (such as a quota) at the same moment, again and again. "
        f"Nothing was lost. {_TRY_AGAIN}"
    )
    default_retry_after = 2


class NoNodePortLeft(Problem):
    slug = "no-node-port-left"
    status = 503
    title = "The cluster has no free node port"
    explanation = "All node ports are in use. The operator can get around this limit: see docs/operations.md."
    default_retry_after = 60


class TooManyCommands(Problem):
    slug = "too-many-commands"
    status = 429
    title = "There are too many commands for this server"
    explanation = f"A server takes ten commands at once, and one a second after that. {_TRY_AGAIN}"
    default_retry_after = 1


class ServerNotRunning(Problem):
    slug = "server-not-running"
    status = 409
    title = "The game does not run"
    explanation = "Only a running game takes commands. `state` and `reason` of the server say what it does."


class NoConsole(Problem):
    slug = "no-console"
    status = 501
    title = "The game takes no commands"
    explanation = "This game has no way in for commands, or the operator has turned it off."


class NoConsoleYet(Problem):
    slug = "no-console-yet"
    status = 409
    title = "The game takes commands after its next start"
    explanation = (
        "The game runs since a time when it had no way in for commands. It has one after the next start or restart."
    )


class ConsoleFailed(Problem):
    slug = "console-failed"
    status = 502
    title = "The game's console does not work"
    explanation = "The game runs, but its console does not answer as it should. `detail` says what is wrong."


class GameDoesNotAnswer(Problem):
    slug = "game-does-not-answer"
    status = 504
    title = "The game does not answer"
    explanation = "The game did not answer the command in time. Nobody knows whether it has carried it out."


class PortNotReady(Problem):
    slug = "port-not-ready"
    status = 503
    title = "The port is not ready yet"
    explanation = (
        f"The cluster is still creating the server's Service or the address of its load balancer. {_TRY_AGAIN}"
    )
    default_retry_after = 2


class PortWithoutAddress(Problem):
    slug = "port-without-address"
    status = 409
    title = "Nothing gives the port an address"
    explanation = (
        "For some minutes, nothing in the cluster has given the server's Service, which `detail` names, the address of "
        "a load balancer. The operator has to repair what does that, or install it: see docs/operations.md."
    )


class DiskNotReady(Problem):
    slug = "disk-not-ready"
    status = 503
    title = "The disk is not ready yet"
    explanation = (
        f"The cluster is still creating the server's disk. {_TRY_AGAIN} If the server is starting, its `state` and "
        "`reason` say what the start is waiting for."
    )
    default_retry_after = 2


class Draining(Problem):
    slug = "draining"
    status = 503
    title = "This replica is shutting down"
    explanation = "Open a new connection: another replica will answer."
    default_retry_after = 1
