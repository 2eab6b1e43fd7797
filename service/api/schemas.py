"""The schemas of requests and answers. They check only the shape; operations check against the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from flask import current_app
from marshmallow import fields, validate

from service.backups.records import ID as BACKUP_ID
from service.console.commands import COMMAND_PATTERN, LONGEST_COMMAND, mistake_in
from service.operations.operation import ACTIONS, OUTCOMES, WHEN
from service.operations.operation import STATES as OPERATION_STATES
from service.servers.idle import KEEPERS
from service.servers.names import LARGEST_ID
from service.servers.notes import SLUGS
from service.servers.state import STATES, WANTED
from service.tokens import CUSTOMER, CUSTOMER_WORDS
from service.web.fields import Flag, Options, QueryNumber, Schema, Success, Text, WholeNumber, one_of

DEFAULT_LIMIT, LARGEST_LIMIT = 100, 500
MOST_IDS = 5_000


def _check_size(name: str) -> Any:
    """A validator for `ram_gb` or `disk_gb`; it reads the operator's limits when it runs, because the app sets them."""

    def check(value: int) -> None:
        settings = current_app.extensions["gameserver"].settings
        smallest, largest = getattr(settings, f"min_{name}"), getattr(settings, f"max_{name}")
        if not smallest <= value <= largest:
            raise ma.ValidationError(f"must be from {smallest} to {largest}")

    return check


def check_customer(value: str) -> None:
    """Raises ValidationError unless `value` can be a customer's name."""
    if not CUSTOMER.fullmatch(value):
        raise ma.ValidationError(f"must be {CUSTOMER_WORDS}")


def _check_idle_minutes(value: int | None) -> None:
    settings = current_app.extensions["gameserver"].settings
    if value and not settings.idle_stop_min <= value <= settings.idle_stop_max:
        raise ma.ValidationError(f"must be null, or from {settings.idle_stop_min} to {settings.idle_stop_max}")


_IDLE_MINUTES: dict[str, Any] = {
    "allow_none": True,
    "validate": _check_idle_minutes,
    "metadata": {"description": "Stop the server when nobody has played for so many minutes; null or 0 for never."},
}


def _check_kept(value: int) -> None:
    most = current_app.extensions["gameserver"].settings.backups_per_server
    if not 0 <= value <= most:
        raise ma.ValidationError(f"must be from 0 to {most}")


class BackupKeep(Schema):
    """How many backups that schedules make stay."""

    last = WholeNumber(load_default=0, validate=_check_kept)
    hourly = WholeNumber(load_default=0, validate=_check_kept)
    daily = WholeNumber(load_default=0, validate=_check_kept)
    weekly = WholeNumber(load_default=0, validate=_check_kept)

    @ma.validates_schema
    def check_any(self, data: Mapping[str, int], **more: Any) -> None:
        """Otherwise a new backup would be the one that goes."""
        if not any(data.values()):
            raise ma.ValidationError("must keep at least one")


_KEEP: dict[str, Any] = {
    "allow_none": True,
    "error_messages": {"type": "must be an object"},
    "metadata": {
        "description": "How many of the backups that schedules make stay: the newest, and the newest of each of so "
        "many hours, days and weeks. null: the operator's default."
    },
}


class WorldSource(Schema):
    """Where the world of a new server comes from: another server, or a backup."""

    server = WholeNumber(validate=validate.Range(1, LARGEST_ID, error="must be a server's id"))
    backup = Text(
        validate=validate.Regexp(rf"{BACKUP_ID.pattern}\Z", error="must be a backup's id"),
        metadata={"pattern": f"^{BACKUP_ID.pattern}$"},
    )

    @ma.validates_schema
    def check_one(self, data: Mapping[str, Any], **more: Any) -> None:
        """It is one of both."""
        if len(data) != 1:
            raise ma.ValidationError("must have either `server` or `backup`")


class CreateServer(Schema):
    ram_gb = WholeNumber(required=True, validate=_check_size("ram_gb"))
    disk_gb = WholeNumber(required=True, validate=_check_size("disk_gb"))
    game = Text(load_default="minecraft")
    options = Options(load_default=dict)
    start = Flag(load_default=True)
    rcon = Text(load_default="public", validate=one_of("public", "private"))
    customer = Text(load_default=None, validate=check_customer, metadata={"pattern": f"^{CUSTOMER.pattern}$"})
    disk = Text(load_default=None, validate=one_of("reuse", "erase"))
    idle_stop_minutes = WholeNumber(**_IDLE_MINUTES)
    backup_keep = fields.Nested(BackupKeep, **_KEEP)
    from_ = fields.Nested(
        WorldSource,
        data_key="from",
        attribute="from",
        error_messages={"null": "must not be null", "type": "must be an object"},
        metadata={"description": "The server or the backup that its world comes from."},
    )


class UpdateServer(Schema):
    ram_gb = WholeNumber(validate=_check_size("ram_gb"))
    disk_gb = WholeNumber(validate=_check_size("disk_gb"))
    options = Options(
        metadata={"description": "Only those that you send change. null resets one to the game's default."}
    )
    idle_stop_minutes = WholeNumber(**_IDLE_MINUTES)
    backup_keep = fields.Nested(BackupKeep, **_KEEP)


_LONGEST_REASON = 500
# One line of printable characters that are not all spaces.
_LINE = r"^ *[^\u0000-\u0020\u007f-\u009f\ufffe\uffff][^\u0000-\u001f\u007f-\u009f\ufffe\uffff]*"


def _suspension_reason(**more: Any) -> Text:
    return Text(
        validate=[
            validate.Length(1, _LONGEST_REASON, error=f"must have 1 to {_LONGEST_REASON} characters"),
            validate.Regexp(rf"{_LINE}\Z", error="must be one line of printable characters, and not only spaces"),
        ],
        **more,
    )


class SuspendServer(Schema):
    reason = _suspension_reason(
        required=True, metadata={"description": "What the customer is told.", "pattern": f"{_LINE}$"}
    )


class DeleteQuery(Schema):
    disk = Text(load_default="keep", validate=one_of("keep", "erase"))
    backups = Text(
        load_default="keep",
        validate=one_of("keep", "erase"),
        metadata={"description": "`erase`: delete all its backups, locked ones too."},
    )


class ListQuery(Schema):
    limit = QueryNumber(
        load_default=DEFAULT_LIMIT,
        validate=validate.Range(1, LARGEST_LIMIT, error=f"must be from 1 to {LARGEST_LIMIT}"),
    )
    continue_ = Text(
        data_key="continue",
        load_default=None,
        validate=validate.Regexp(r"[1-9][0-9]{0,18}\Z", error="must be the `continue` of an earlier answer"),
        metadata={"pattern": "^[1-9][0-9]{0,18}$", "description": "The `continue` of the previous page."},
    )


class WaitQuery(Schema):
    wait = Text(
        load_default=None,
        validate=one_of("running"),
        metadata={"description": "`running`: answer only when the server runs, or the time is over."},
    )
    timeout_s = QueryNumber(
        load_default=60,
        validate=validate.Range(1, 300, error="must be from 1 to 300"),
        metadata={"description": "With `wait`: after how many seconds to answer with the state as it is then."},
    )


class Started(Success):
    state = fields.String(validate=one_of(*STATES), metadata={"description": "Only with `wait`."})
    reason = fields.String(allow_none=True, metadata={"description": "Only with `wait`."})


class Changed(Success):
    restarting = fields.Boolean(
        required=True, metadata={"description": "Whether the running game restarts to apply the change."}
    )


_HOST = (
    "Null until the server's disk has a node, or its load balancer an address. "
    "Then it stays the same for as long as the disk exists."
)


class Port(Schema):
    port = fields.Integer(required=True)
    protocol = fields.String(required=True, validate=one_of("TCP", "UDP", "both"))
    host = fields.String(required=True, allow_none=True, metadata={"description": _HOST})


class Ports(Schema):
    primary = fields.Nested(Port)
    rcon = fields.Nested(Port)
    sftp = fields.Nested(Port)


class PortAnswer(Port, Success):
    pass


class RconAnswer(Success):
    host = fields.String(required=True, allow_none=True, metadata={"description": _HOST})
    port = fields.Integer(required=True)
    password = fields.String(required=True)


def _check_command(value: str) -> None:
    if mistake := mistake_in(value):
        raise ma.ValidationError(mistake)


class SendCommand(Schema):
    command = Text(
        required=True,
        validate=_check_command,
        metadata={
            "minLength": 1,
            "maxLength": LONGEST_COMMAND,
            "pattern": COMMAND_PATTERN,
            "description": f"One line of at most {LONGEST_COMMAND} bytes in UTF-8.",
        },
    )


class CommandAnswer(Success):
    output = fields.String(required=True, metadata={"description": "What the game said; at most 64 KiB."})
    truncated = fields.Boolean(required=True, metadata={"description": "Whether the output is cut."})


class DiskUsage(Schema):
    size_gb = fields.Integer(
        required=True, allow_none=True, metadata={"description": "The disk's size in GiB, as it is right now."}
    )
    used_gb = fields.Float(required=True, allow_none=True, metadata={"description": "GiB; null if unknown."})
    as_of = fields.String(
        required=True, allow_none=True, metadata={"description": "When the disk's node looked; null if it never did."}
    )
    enforced = fields.Boolean(
        required=True, allow_none=True, metadata={"description": "Whether the size is a limit; null if unknown."}
    )


class Note(Schema):
    slug = fields.String(required=True, validate=one_of(*SLUGS))
    detail = fields.String(required=True)


class Keeper(Schema):
    slug = fields.String(required=True, validate=one_of(*KEEPERS))
    detail = fields.String(required=True)


class Idle(Schema):
    players = fields.Integer(required=True, allow_none=True, metadata={"description": "Null if unknown."})
    since = fields.String(
        required=True, allow_none=True, metadata={"description": "Since when somebody plays, or nobody does."}
    )
    stops_at = fields.String(
        required=True, allow_none=True, metadata={"description": "When the server stops if nobody joins."}
    )
    kept_up_by = fields.Nested(
        Keeper, required=True, allow_none=True, metadata={"description": "What keeps the running server up."}
    )
    stopped_at = fields.String(
        required=True, allow_none=True, metadata={"description": "When it was stopped because nobody played."}
    )


class Players(Schema):
    online = fields.Integer(required=True, metadata={"description": "How many, those who only watch included."})
    max = fields.Integer(
        required=True, allow_none=True, metadata={"description": "How many may play; null if the game does not say."}
    )
    names = fields.List(
        fields.String(),
        required=True,
        allow_none=True,
        metadata={"description": "Who plays; the game may leave some out. null if it does not say."},
    )
    as_of = fields.String(required=True, metadata={"description": "When the game said so."})


class Usage(Schema):
    memory_gb = fields.Float(required=True, metadata={"description": "GiB."})
    cpu = fields.Float(required=True, metadata={"description": "CPUs, on average over the last moments."})
    as_of = fields.String(required=True, metadata={"description": "When it was measured."})


class Suspension(Schema):
    reason = fields.String(required=True)
    since = fields.String(required=True, allow_none=True)


class WaitingOperation(Schema):
    id = fields.String(required=True)
    action = fields.String(required=True)
    step = fields.String(required=True)


class KeptBackups(Schema):
    last = fields.Integer(required=True)
    hourly = fields.Integer(required=True)
    daily = fields.Integer(required=True)
    weekly = fields.Integer(required=True)


class Server(Schema):
    id = fields.Integer(required=True)
    game = fields.String(required=True, allow_none=True)
    ram_gb = fields.Integer(required=True, allow_none=True)
    disk_gb = fields.Integer(required=True, allow_none=True)
    disk = fields.Nested(DiskUsage, required=True)
    options = fields.Dict(required=True, allow_none=True)
    wanted = fields.String(required=True, validate=one_of(*WANTED))
    state = fields.String(required=True, validate=one_of(*STATES))
    reason = fields.String(required=True, allow_none=True)
    since = fields.String(required=True, allow_none=True)
    suspended = fields.Nested(
        Suspension, required=True, allow_none=True, metadata={"description": "Null unless the server is suspended."}
    )
    operation = fields.Nested(
        WaitingOperation,
        required=True,
        allow_none=True,
        metadata={"description": "The operation that waits for its moment with this server; null if there is none."},
    )
    notes = fields.List(fields.Nested(Note), required=True)
    idle_stop_minutes = fields.Integer(required=True, allow_none=True, metadata={"description": "Null for never."})
    backup_keep = fields.Nested(
        KeptBackups, required=True, allow_none=True, metadata={"description": "Null for the operator's default."}
    )
    players = fields.Nested(
        Players,
        required=True,
        allow_none=True,
        metadata={"description": "As last known; null if unknown, and while the server does not run."},
    )
    usage = fields.Nested(
        Usage,
        required=True,
        allow_none=True,
        metadata={"description": "What the game uses, as last measured; null if unknown."},
    )
    idle = fields.Nested(
        Idle,
        required=True,
        allow_none=True,
        metadata={"description": "Null unless the server stops when nobody plays, or was stopped for that."},
    )
    host = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The host of the port `primary`; null if there is none."},
    )
    ports = fields.Nested(Ports, required=True)


class ServerAnswer(Server, Success):
    pass


class ServersAnswer(Success):
    servers = fields.List(fields.Nested(Server), required=True)
    continue_ = fields.String(data_key="continue", attribute="continue", required=True, allow_none=True)


class Disk(Schema):
    id = fields.Integer(required=True)
    disk_gb = fields.Integer(required=True)
    disk = fields.Nested(DiskUsage, required=True)
    since = fields.String(required=True, allow_none=True)


class DisksAnswer(Success):
    disks = fields.List(fields.Nested(Disk), required=True)


class Game(Schema):
    name = fields.String(required=True)
    title = fields.String(required=True)
    description = fields.String(required=True)
    eula = fields.String(required=True, allow_none=True)
    eula_accepted = fields.Boolean(required=True)
    ports = fields.List(fields.Dict(), required=True)
    options = fields.Dict(required=True, metadata={"description": "The JSON Schema of the options."})


class GamesAnswer(Success):
    games = fields.List(fields.Nested(Game), required=True)


class Alive(Schema):
    alive = fields.Constant(True, required=True, metadata={"type": "boolean", "enum": [True]})


_MOST_KEYS = 20


class SetAccount(Schema):
    password = Flag(
        metadata={
            "description": "true: a new password, which only this answer shows. false: no password. Absent: no change."
        }
    )
    public_keys = fields.List(
        Text(metadata={"format": "ssh-public-key"}),
        validate=validate.Length(max=_MOST_KEYS, error=f"must have at most {_MOST_KEYS} keys"),
        error_messages={"null": "must not be null", "invalid": "must be a list"},
        metadata={
            "description": "All public keys, in OpenSSH's format. They replace the previous ones. Absent: no change."
        },
    )


class AccountAnswer(Success):
    user = fields.String(required=True)
    password = fields.String(
        required=True, allow_none=True, metadata={"description": "The new password, shown only once; otherwise null."}
    )
    password_set = fields.Boolean(required=True)
    public_keys = fields.List(fields.String(), required=True)
    host_keys = fields.List(
        fields.String(),
        required=True,
        metadata={"description": "What an SFTP client shows at the first login."},
    )


class Bulk(Schema):
    ids = fields.List(
        WholeNumber(validate=validate.Range(1, LARGEST_ID, error="must be a server's id")),
        load_default=None,
        allow_none=False,
        validate=validate.Length(1, MOST_IDS, error=f"must have from 1 to {MOST_IDS} ids"),
        error_messages={"null": "must not be null", "invalid": "must be a list"},
    )
    customer = Text(
        load_default=None,
        allow_none=False,
        validate=check_customer,
        metadata={"pattern": f"^{CUSTOMER.pattern}$"},
    )
    all = Flag(
        load_default=None,
        allow_none=False,
        validate=validate.Equal(True, error="must be true or absent"),
        metadata={"description": "All servers that the token may see.", "enum": [True]},
    )
    action = Text(required=True, validate=one_of(*ACTIONS))
    when = Text(
        load_default="now",
        validate=one_of(*WHEN),
        metadata={
            "description": "`idle`: when nobody plays on the server, or it does not run. `next-stop`: when it is "
            "stopped. `idle` is for stop, restart, suspend and upgrade, `next-stop` for suspend and upgrade."
        },
    )
    reason = _suspension_reason(
        load_default=None,
        allow_none=False,
        metadata={"description": "What the customers are told; only for suspend.", "pattern": f"{_LINE}$"},
    )


#: HTTP takes spaces around a header's value away.
_KEY = r"[!-~]([ -~]{0,253}[!-~])?"


class IdempotencyHeaders(Schema):
    class Meta:
        unknown = ma.EXCLUDE

    key = Text(
        data_key="Idempotency-Key",
        load_default=None,
        validate=validate.Regexp(rf"{_KEY}\Z", error="must be 1 to 255 printable ASCII characters"),
        metadata={"pattern": f"^{_KEY}$"},
    )


class OperationQuery(Schema):
    wait = QueryNumber(
        load_default=None,
        allow_none=False,
        validate=validate.Range(0, 300, error="must be from 0 to 300"),
        metadata={"description": "Answer only when the operation has ended, or after so many seconds."},
    )


class Progress(Schema):
    total = fields.Integer(required=True)
    done = fields.Integer(required=True)
    failed = fields.Integer(required=True)
    waiting = fields.Integer(required=True)


class OperationServer(Schema):
    id = fields.Integer(required=True)
    outcome = fields.String(required=True, validate=one_of(*OUTCOMES))
    reason = fields.String(required=True, allow_none=True)


class ListedOperation(Schema):
    id = fields.String(required=True)
    action = fields.String(required=True)
    backup = fields.String(metadata={"description": "The backup that it makes, restores or deletes."})
    when = fields.String(required=True)
    state = fields.String(required=True, validate=one_of(*OPERATION_STATES))
    step = fields.String(required=True, allow_none=True)
    progress = fields.Nested(Progress, required=True)
    reason = fields.String(required=True, allow_none=True)
    created = fields.String(required=True)
    finished = fields.String(required=True, allow_none=True)


class Operation(ListedOperation):
    servers = fields.List(fields.Nested(OperationServer), required=True)


class OperationAnswer(Operation, Success):
    pass


class OperationsAnswer(Success):
    operations = fields.List(fields.Nested(ListedOperation), required=True)
