"""The schemas of requests and answers. They check only the shape; operations check against the cluster."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from flask import current_app
from marshmallow import fields, validate

from service.servers.notes import SLUGS
from service.servers.state import STATES, WANTED
from service.tokens import CUSTOMER, CUSTOMER_WORDS
from service.web.fields import Flag, Options, QueryNumber, Schema, Success, Text, WholeNumber, one_of

DEFAULT_LIMIT, LARGEST_LIMIT = 100, 500


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


class CreateServer(Schema):
    ram_gb = WholeNumber(required=True, validate=_check_size("ram_gb"))
    disk_gb = WholeNumber(required=True, validate=_check_size("disk_gb"))
    game = Text(load_default="minecraft")
    options = Options(load_default=dict)
    start = Flag(load_default=True)
    rcon = Text(load_default="public", validate=one_of("public", "private"))
    customer = Text(load_default=None, validate=check_customer, metadata={"pattern": f"^{CUSTOMER.pattern}$"})
    disk = Text(load_default=None, validate=one_of("reuse", "erase"))


class UpdateServer(Schema):
    ram_gb = WholeNumber(validate=_check_size("ram_gb"))
    disk_gb = WholeNumber(validate=_check_size("disk_gb"))
    options = Options(
        metadata={"description": "Only those that you send change. null resets one to the game's default."}
    )


_LONGEST_REASON = 500
# One line of printable characters that are not all spaces.
_LINE = r"^ *[^\u0000-\u0020\u007f-\u009f\ufffe\uffff][^\u0000-\u001f\u007f-\u009f\ufffe\uffff]*"


class SuspendServer(Schema):
    reason = Text(
        required=True,
        validate=[
            validate.Length(1, _LONGEST_REASON, error=f"must have 1 to {_LONGEST_REASON} characters"),
            validate.Regexp(rf"{_LINE}\Z", error="must be one line of printable characters, and not only spaces"),
        ],
        metadata={"description": "What the customer is told.", "pattern": f"{_LINE}$"},
    )


class DeleteQuery(Schema):
    disk = Text(load_default="keep", validate=one_of("keep", "erase"))


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


_HOST = "Null until the server's disk has a node. Then it stays the same for as long as the disk exists."


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


class Suspension(Schema):
    reason = fields.String(required=True)
    since = fields.String(required=True, allow_none=True)


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
    notes = fields.List(fields.Nested(Note), required=True)
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
