"""Webhooks as they are kept: the text of each in its Secret. Pure."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from service.records.secret import Records
from service.tokens import Token

NAME = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
"""What a webhook's name looks like."""
MOST = 100
"""How many webhooks there may be."""
MOST_OF_A_CUSTOMER = 5
"""How many of them may be one customer's own."""
TEST = "test"
"""The type of the delivery that only tries a webhook."""
TEST_SECONDS = 60.0
"""How long a test may wait for the controller."""


@dataclass(frozen=True)
class Webhook:
    """A webhook.

    Attributes:
        uid: Distinguishes it from an earlier one with the same name. Its signing secrets and its deliveries go by it.
        owner: The customer whose token made it, or None if it is the provider's. Names are per owner.
        name: Its name.
        url: Where events are sent.
        types: The types of events to send, or None for all.
        customer: Only events about servers of this customer, or None.
        server: Only events about the server with this id, or None.
        servers: The servers to which its maker's token was confined, or None.
        enabled: Whether events are sent.
        starts: How often it was enabled; the first time when it was made.
        after: The position in the log of events at which it was enabled last: what comes after it is sent.
        created: When it was made, in RFC 3339.
        made_by: The name of the token that made it.
        test: The id of the latest delivery that was asked for as a test, or "".
        test_asked: When that was, in RFC 3339.
    """

    uid: str
    owner: str | None
    name: str
    url: str
    types: tuple[str, ...] | None
    customer: str | None
    server: int | None
    servers: tuple[int, ...] | None
    enabled: bool
    starts: int
    after: int
    created: str
    made_by: str
    test: str = ""
    test_asked: str = ""

    @property
    def key(self) -> str:
        """The key of its record."""
        return key_of(self.owner, self.name)

    def wants(self, type: str, customer: str | None, server: int | None) -> bool:
        """Whether to send an event of this type, about this customer's server.

        That events were dropped concerns everyone whose events they may have been.
        """
        if self.types is not None and type not in self.types:
            return False
        if type == "dropped":
            return True
        return (
            self.customer in (None, customer)
            and self.server in (None, server)
            and (self.servers is None or server in self.servers)
        )

    def seen_by(self, caller: Token) -> bool:
        """Whether the caller may see and change it."""
        if caller.customer is None:
            return caller.servers is None
        if caller.customer != self.owner:
            return False
        return caller.servers is None or (self.servers is not None and caller.servers.issuperset(self.servers))


def new_uid() -> str:
    """A uid for a new webhook."""
    return secrets.token_hex(10)


def new_test() -> str:
    """An id for a test."""
    return f"test-{secrets.token_hex(8)}"


def key_of(owner: str | None, name: str) -> str:
    """The key of a webhook's record. A name has no dot, so a key belongs to one owner and one name."""
    return name if owner is None else f"{owner}.{name}"


def parts_of(key: str) -> tuple[str | None, str]:
    """The owner and the name in a key."""
    owner, _, name = key.rpartition(".")
    return owner or None, name


def written(webhook: Webhook) -> str:
    """The text of a record."""
    fields = {name: value for name, value in asdict(webhook).items() if name not in ("owner", "name")}
    return json.dumps({name: value for name, value in fields.items() if value not in (None, "")}, separators=(",", ":"))


def read(key: str, text: str) -> Webhook:
    """Parse a record; raises ValueError, whose message does not quote the text."""
    owner, name = parts_of(key)
    try:
        fields: dict[str, Any] = json.loads(text)
        return Webhook(
            uid=_text(fields["uid"]),
            owner=owner,
            name=name,
            url=_text(fields["url"]),
            types=_tuple(fields.get("types")),
            customer=fields.get("customer"),
            server=fields.get("server"),
            servers=_tuple(fields.get("servers")),
            enabled=bool(fields["enabled"]),
            starts=int(fields["starts"]),
            after=int(fields["after"]),
            created=_text(fields["created"]),
            made_by=_text(fields["made_by"]),
            test=fields.get("test", ""),
            test_asked=fields.get("test_asked", ""),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f"the webhook {key} cannot be read") from None


def all_of(records: Records, report: Callable[[str, str], None] = lambda key, error: None) -> dict[str, Webhook]:
    """Parse the valid records, by key; calls `report(key, error)` for each invalid one."""
    webhooks = {}
    for key, text in records.items():
        try:
            webhooks[key] = read(key, text)
        except ValueError as error:
            report(key, str(error))
    return webhooks


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("not a text")
    return value


def _tuple(value: Any) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)
