"""What can go wrong, in the words that a client of the API may read.

A module that cannot go on raises one of these; `web/problems.py` alone turns it into an RFC 9457
`application/problem+json` answer. The detail is written for the client on purpose: the cause (a helm
message, a stack trace) goes to the log through `raise … from cause`, never into the answer.

Nothing here imports Flask or a client, so the edges and the pure modules can raise them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

Errors = Mapping[str, Sequence[str]]


class StartupError(Exception):
    """The service cannot start as it is set up; the message names the file (and line) to mend."""


class Problem(Exception):
    """A request that gets an error answer.

    `slug` names the kind for good (it is the last part of the answer's `type`), `status` is the HTTP
    status, `retry_after` the seconds after which the same request may well succeed, `errors` the messages
    by field.
    """

    slug: ClassVar[str] = "internal-error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong inside the API"
    explanation: ClassVar[str] = (
        "The API failed in a way that it does not know. Its log has the cause under the request id of the answer."
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
"""Every kind of problem by its slug, wherever it is defined: the pages under /problems/ come from it."""


# -- the request itself ------------------------------------------------------------------------------------


class MalformedBody(Problem):
    slug = "malformed-body"
    status = 400
    title = "The body is not JSON"
    explanation = "The request needs a body of one JSON object, encoded as UTF-8."


class InvalidRequest(Problem):
    slug = "invalid-request"
    status = 422
    title = "The request does not fit"
    explanation = "A field is missing, unknown, of the wrong type or out of its range; `errors` names it."


class Unauthorized(Problem):
    slug = "unauthorized"
    status = 401
    title = "A valid bearer token is needed"
    explanation = "Send `Authorization: Bearer <token>` with a token that the operator has given out."


class MissingScope(Problem):
    slug = "missing-scope"
    status = 403
    title = "The token may not do this"
    explanation = "The token is valid, but lacks a scope that this call needs, or is confined to others; see `detail`."


class NotFound(Problem):
    slug = "not-found"
    status = 404
    title = "There is nothing at this address"
    explanation = "The path is unknown, or the id is none: ids are the whole numbers from 1 to 9223372036854775807."


class TokenNotFound(Problem):
    slug = "token-not-found"
    status = 404
    title = "There is no such token"
    explanation = "The API has given out no token of this name, or one that may do more than the token that asks."


class TokenExists(Problem):
    slug = "token-exists"
    status = 409
    title = "There is a token of this name already"
    explanation = "Choose another name, or delete that token first: none is ever shown a second time."


class TooManyTokens(Problem):
    slug = "too-many-tokens"
    status = 409
    title = "Too many tokens have been given out"
    explanation = "The API keeps 1,000 tokens and login links at most. Delete some, or let them expire."


class LoginLinkGone(Problem):
    slug = "login-link-gone"
    status = 404
    title = "This login link does not work"
    explanation = "It was opened before, has expired, or never existed. A link opens once: ask for a new one."


class TokensNotKept(Problem):
    slug = "tokens-not-kept"
    status = 501
    title = "This API gives out no tokens"
    explanation = "It reads its tokens from a file (`TOKENS_FILE`), and has no Secret to keep others in."


class ServerNotFound(Problem):
    slug = "server-not-found"
    status = 404
    title = "There is no such server"
    explanation = "No server with this id exists, or the token may not see it."


class PortNotFound(Problem):
    slug = "port-not-found"
    status = 404
    title = "The server has no such port"
    explanation = "The operator has switched this port off for the server."


class ObjectMissing(Problem):
    slug = "object-missing"
    status = 409
    title = "A part of the server is missing"
    explanation = (
        "Something has deleted an object of the server's; `detail` says which. A start makes it again, as does the "
        "create of the server, sent once more as it was."
    )


class ReleaseMissing(Problem):
    slug = "release-missing"
    status = 409
    title = "Helm's record of the server is missing"
    explanation = (
        "The server's objects are there, but something has deleted its Helm release, the record of what is wanted. "
        'The operator\'s handbook says how to make the server again over its disk ("A lost release over a kept disk").'
    )


class RconPasswordReplaced(Problem):
    slug = "rcon-password-replaced"
    status = 409
    title = "The game does not know its new RCON password yet"
    explanation = "The Secret with the password was made anew while the game ran. A restart lets the game read it."


class MethodNotAllowed(Problem):
    slug = "method-not-allowed"
    status = 405
    title = "This address does not know the method"
    explanation = "The `Allow` header names the methods that it knows."


class BodyTooLarge(Problem):
    slug = "body-too-large"
    status = 413
    title = "The body is too large"
    explanation = "A request's body may have at most 64 KiB."


class UnsupportedMediaType(Problem):
    slug = "unsupported-media-type"
    status = 415
    title = "The body must be application/json"
    explanation = "Send the header `Content-Type: application/json`."


class AddressTooLong(Problem):
    slug = "address-too-long"
    status = 414
    title = "The address is too long"
    explanation = "The request's first line (method, path and query) may have at most 4094 bytes."


class HeadersTooLarge(Problem):
    slug = "headers-too-large"
    status = 431
    title = "The headers are too large"
    explanation = "A request may have at most 100 headers of 8190 bytes each."


class BadRequest(Problem):
    slug = "bad-request"
    status = 400
    title = "The request is not understood"
    explanation = "The request breaks the rules of HTTP."


# -- the server as it is -----------------------------------------------------------------------------------


class ServerExists(Problem):
    slug = "server-exists"
    status = 409
    title = "The server exists already, and is another"
    explanation = (
        "A server with this id exists, made or changed to be something else than this request describes. "
        "Change it with PATCH, or delete it first."
    )


class OperationInProgress(Problem):
    slug = "operation-in-progress"
    status = 409
    title = "Another operation on this server is under way"
    explanation = "Send the request again after the seconds in `Retry-After`."
    default_retry_after = 1


class DiskKept(Problem):
    slug = "disk-kept"
    status = 409
    title = "A disk of an earlier server with this id was kept"
    explanation = 'Say `"disk": "reuse"` to go on with what is on it, or `"disk": "erase"` to begin with an empty one.'


class DiskBeingErased(Problem):
    slug = "disk-being-erased"
    status = 409
    title = "The earlier disk is still being erased"
    explanation = "Send the request again after the seconds in `Retry-After`."
    default_retry_after = 5


class DiskCannotShrink(Problem):
    slug = "disk-cannot-shrink"
    status = 409
    title = "A disk cannot become smaller"
    explanation = "Kubernetes can grow a disk, never shrink it."


class DiskCannotGrow(Problem):
    slug = "disk-cannot-grow"
    status = 409
    title = "This disk cannot grow"
    explanation = "Its storage class does not allow it to be expanded, or it has not been made yet."


class DiskNotNodeLocal(Problem):
    slug = "disk-not-node-local"
    status = 409
    title = "The files of this disk cannot be reached over SFTP"
    explanation = (
        "File access works on volumes that are a folder of one node (hostPath or local with node affinity). "
        "This server's disk is of a storage class that attaches volumes over the network."
    )


class DiskNotMade(Problem):
    slug = "disk-not-made"
    status = 409
    # No Retry-After: it does not come by itself.
    title = "The server has no disk yet"
    explanation = (
        "The cluster makes a server's disk at its first start, and its files are reached from then on, whether it "
        "runs or not. Start the server once, then send the request again."
    )


class EulaNotAccepted(Problem):
    slug = "eula-not-accepted"
    status = 409
    title = "The game's licence has not been accepted"
    explanation = (
        "The operator has to accept the game's end user licence agreement once, in the values of the API's chart "
        "(`acceptedEulas`), before servers of this game can be created."
    )


class OperationFailed(Problem):
    slug = "operation-failed"
    status = 500
    title = "The operation failed"
    explanation = "Helm could not carry the operation out. The API's log has its message under the request id."
    default_retry_after = 10


class RefusedByCluster(Problem):
    slug = "refused-by-cluster"
    # No 409: the caller's request is in order, and there is nothing in it that could be mended.
    status = 503
    title = "The cluster refused the change"
    explanation = (
        "A rule of the cluster (a quota, an admission policy, an object in the way) refused the change. The operator "
        "has to mend it; the API's log has the cluster's words under the request id."
    )
    default_retry_after = 30


class FieldConflict(Problem):
    slug = "field-conflict"
    status = 409
    title = "Another hand holds a part of this server"
    explanation = (
        "Something other than Helm, such as `kubectl scale`, has taken over a field of the server's objects. "
        "The operator's handbook says how to give it back."
    )


# -- the cluster as it is ----------------------------------------------------------------------------------


class TooManyOperations(Problem):
    slug = "too-many-operations"
    status = 429
    title = "Too much at once"
    explanation = "All places for operations were taken for 10 seconds. Send it again after `Retry-After` seconds."
    default_retry_after = 5


class FileAccessNotInstalled(Problem):
    slug = "file-access-not-installed"
    status = 501
    title = "File access is not installed"
    explanation = "The operator has not installed the sftp-daemonset chart with this API."


class ClusterUnavailable(Problem):
    slug = "cluster-unavailable"
    status = 503
    title = "Kubernetes does not answer"
    explanation = "Nothing was lost. Send the request again after the seconds in `Retry-After`."
    default_retry_after = 5


class ClusterContended(Problem):
    slug = "cluster-contended"
    status = 503
    title = "Too many write to the cluster at once"
    explanation = (
        "Others changed the same object (such as a quota) at the same moment, again and again. "
        "Nothing was lost. Send the request again after the seconds in `Retry-After`."
    )
    default_retry_after = 2


class NoNodePortLeft(Problem):
    slug = "no-node-port-left"
    status = 503
    title = "The cluster has no node port left"
    explanation = "All node ports are taken. The operator's handbook has the ways past this limit."
    default_retry_after = 60


class PortNotReady(Problem):
    slug = "port-not-ready"
    status = 503
    title = "The port is not there yet"
    explanation = (
        "The server's Service, or the address of its load balancer, is still being made. "
        "Send the request again after `Retry-After` seconds."
    )
    default_retry_after = 2


class DiskNotReady(Problem):
    slug = "disk-not-ready"
    status = 503
    title = "The disk is not there yet"
    explanation = (
        "The server's first start is still making its disk. Send the request again after `Retry-After` seconds; what "
        "the start waits for is in the server's `state` and `reason`."
    )
    default_retry_after = 2


class Draining(Problem):
    slug = "draining"
    status = 503
    title = "This replica is shutting down"
    explanation = "Another replica answers; a new connection reaches it."
    default_retry_after = 1
