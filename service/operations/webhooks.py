"""What can be done to webhooks: make, change, list and delete them, rotate their secrets, try them.

The controller sends the events. What it does about a webhook stands in a record that only it writes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from service.errors import (
    ClusterUnavailable,
    InvalidRequest,
    MissingScope,
    Problem,
    TooManyWebhooks,
    WebhookNotFound,
    WebhooksNotKept,
)
from service.kube.client import Conflict
from service.kube.times import now, stamp
from service.operations.context import Context
from service.operations.interfaces import Webhooks
from service.records.secret import Records
from service.records.store import Record
from service.tokens import Token
from service.webhooks import deliveries, signing, urls
from service.webhooks.addresses import Reach
from service.webhooks.deliveries import Deliveries
from service.webhooks.records import (
    MOST,
    MOST_OF_A_CUSTOMER,
    Webhook,
    all_of,
    new_test,
    new_uid,
    parts_of,
    read,
    written,
)

log = logging.getLogger(__name__)

ORPHANED = timedelta(hours=1)
"""A secret without a webhook that is older than this belongs to none that is just being made."""
SYNC_SECONDS = 3.0
"""How long to wait for the log of events, which is read when it is first needed."""
NOT_OPEN = "The operator has not opened webhooks to customers."


@dataclass(frozen=True)
class Shown:
    """A webhook and how its deliveries are.

    Attributes:
        webhook: The webhook.
        state: `ok`, `failing` (the last try failed) or `disabled`.
        reason: Why it is failing or disabled, in plain words, or None.
        deliveries: How far they are.
    """

    webhook: Webhook
    state: str
    reason: str | None
    deliveries: Deliveries


def put(context: Context, caller: Token, name: str, request: Mapping[str, Any]) -> tuple[Webhook, str | None]:
    """Make a webhook, or change the one with this name.

    Args:
        context: The operation's collaborators.
        caller: Who calls.
        name: The name in the path.
        request: A loaded PutWebhook.

    Returns:
        The webhook, and its signing secret if it is new, which is not shown again.

    Raises:
        InvalidRequest: The URL cannot be a webhook's.
        MissingScope: The caller may have no webhooks, or none for that customer or server.
        TooManyWebhooks: There is no room for another one.
        WebhookNotFound: There is no such webhook of a customer, and only he can make one.
    """
    kept, (owner, short) = _kept(context), _named(context, caller, name)
    settings = context.settings
    # What the operator lists is for the provider's own webhooks alone.
    listed = settings.webhook_allowed if owner is None else ()
    if wrong := urls.mistake(request["url"], Reach(listed, settings.webhook_refused)):
        raise InvalidRequest(errors={"url": [wrong]})
    customer = _customer(caller, owner, request)
    server = request["server"]
    if server is not None and not caller.reaches(server):
        raise MissingScope(f"The token {caller.name} is confined to other servers.")
    # The position must be known before the webhook is written: from there on, no event is missed.
    after = _newest(context)
    new = Webhook(
        uid=new_uid(),
        owner=owner,
        name=short,
        url=request["url"],
        types=None if request["types"] is None else tuple(sorted(set(request["types"]))),
        customer=customer,
        server=server,
        servers=None if caller.servers is None else tuple(sorted(caller.servers)),
        enabled=request["enabled"],
        starts=1,
        after=after,
        created=now(),
        made_by=caller.name,
    )
    secret = signing.new_secret()
    records = kept.config.read()
    known = _find(records, new.key)
    if known is None:
        if caller.customer is None and owner is not None:
            raise WebhookNotFound()
        _check_room(records, new)
        # Its secret comes first, so that no webhook is ever without one.
        _write_secrets(kept, records, new, secret)
    elif not known.seen_by(caller):
        raise WebhookNotFound()
    ended = known is not None and bool(_deliveries(context, known).ended)
    result: list[Webhook] = []

    def write(records: Records) -> dict[str, str | None]:
        current = _find(records, new.key)
        if (None if current is None else current.uid) != (None if known is None else known.uid):
            # Another call made or deleted it at this moment; the caller sends this one again.
            raise ClusterUnavailable("The webhook was changed at the same moment.")
        if current is None:
            _check_room(records, new)
            result[:] = [new]
        else:
            result[:] = [_changed(current, new, ended)]
        return {new.key: written(result[0])}

    kept.config.change(write)
    return result[0], secret if known is None else None


def get(context: Context, caller: Token, name: str) -> Shown:
    """A webhook; raises WebhookNotFound unless there is one that the caller may see."""
    webhook = _require_webhook(context, caller, name)
    return _shown(context, webhook, _deliveries(context, webhook))


def list_(context: Context, caller: Token) -> list[Shown]:
    """The webhooks that the caller may see, by owner and name."""
    _require_open(context, caller)
    webhooks = [one for one in all_of(_kept(context).config.read()).values() if one.seen_by(caller)]
    known = {record.name: record for record in context.records(deliveries.KIND).all()} if webhooks else {}
    webhooks.sort(key=lambda one: (one.owner or "", one.name))
    return [_shown(context, webhook, _read(known.get(webhook.uid), webhook)) for webhook in webhooks]


def rotate(context: Context, caller: Token, name: str) -> str:
    """Give a webhook a new secret, and return it. The earlier one signs beside it for 24 hours."""
    webhook, kept = _require_webhook(context, caller, name), _kept(context)
    secret, moment = signing.new_secret(), datetime.now(UTC).replace(microsecond=0)

    def write(records: Records) -> dict[str, str | None]:
        try:
            known = signing.read(records[webhook.uid])
        except (KeyError, ValueError):
            # Someone has damaged or removed it by hand. A new one repairs that.
            known = []
        return {webhook.uid: signing.written(signing.rotated(known, secret, moment))}

    kept.secrets.change(write)
    return secret


def delete(context: Context, caller: Token, name: str) -> None:
    """Delete a webhook with its secrets. What waits for another try is not sent."""
    webhook, kept = _require_webhook(context, caller, name), _kept(context)

    def remove(records: Records) -> dict[str, str | None]:
        current = _find(records, webhook.key)
        return {webhook.key: None} if current is not None and current.uid == webhook.uid else {}

    kept.config.change(remove)
    kept.secrets.change(lambda records: {webhook.uid: None} if webhook.uid in records else {})
    store = context.records(deliveries.KIND)
    # The controller writes there, and deletes it later if this fails.
    with suppress(Conflict, Problem):
        if (record := store.get(webhook.uid)) is not None:
            store.delete(record)


def test(context: Context, caller: Token, name: str) -> str:
    """Ask the controller to send a test to a webhook; returns the id of that delivery."""
    webhook, id = _require_webhook(context, caller, name), new_test()

    def ask(records: Records) -> dict[str, str | None]:
        current = _find(records, webhook.key)
        if current is None or current.uid != webhook.uid:
            raise WebhookNotFound()
        return {webhook.key: written(replace(current, test=id, test_asked=now()))}

    _kept(context).config.change(ask)
    return id


# -- parts -------------------------------------------------------------------------------------------------


def _kept(context: Context) -> Webhooks:
    if context.webhooks is None:
        raise WebhooksNotKept()
    return context.webhooks


def _require_open(context: Context, caller: Token) -> None:
    """Raises MissingScope if the caller is confined, unless the operator lets customers have webhooks."""
    if not caller.confined:
        return
    if not context.settings.webhooks_for_customers:
        raise MissingScope(f"{NOT_OPEN} The token {caller.name} is confined.")
    if caller.customer is None:
        # Ids are used again: events of another customer's server would follow.
        raise MissingScope(f"The token {caller.name} is confined to servers, but to no customer.")


def _named(context: Context, caller: Token, name: str) -> tuple[str | None, str]:
    """The owner and the name that a path means for this caller. A confined caller's names are its customer's."""
    _require_open(context, caller)
    owner, short = parts_of(name)
    if caller.customer is None:
        return owner, short
    if owner not in (None, caller.customer):
        raise WebhookNotFound()
    return caller.customer, short


def _find(records: Records, key: str) -> Webhook | None:
    """The webhook with this key. A record that cannot be read is as if there were none, so a PUT replaces it."""
    try:
        return read(key, records[key]) if key in records else None
    except ValueError as error:
        log.warning("ignoring a webhook: %s", error)
        return None


def _require_webhook(context: Context, caller: Token, name: str) -> Webhook:
    owner, short = _named(context, caller, name)
    webhook = _find(_kept(context).config.read(), short if owner is None else f"{owner}.{short}")
    if webhook is None or not webhook.seen_by(caller):
        raise WebhookNotFound()
    return webhook


def _customer(caller: Token, owner: str | None, request: Mapping[str, Any]) -> str | None:
    customer: str | None = request["customer"]
    if owner is None or customer in (None, owner):
        return customer if owner is None else owner
    if caller.customer is not None:
        raise MissingScope(f"The token {caller.name} is confined to another customer.")
    raise InvalidRequest(errors={"customer": [f"must be {owner}, whose webhook this is"]})


def _newest(context: Context) -> int:
    if context.events is not None:
        context.events.start()
    if context.events is None or not context.events.wait(SYNC_SECONDS):
        raise ClusterUnavailable("The API does not know the events yet, because Kubernetes has not answered.")
    return context.events.newest


def _changed(current: Webhook, new: Webhook, ended: bool) -> Webhook:
    """The webhook after a PUT. If it is enabled by it, events are sent from here on."""
    changed = replace(
        current, url=new.url, types=new.types, customer=new.customer, server=new.server, enabled=new.enabled
    )
    if new.enabled and (ended or not current.enabled):
        return replace(changed, starts=current.starts + 1, after=new.after)
    return changed


def _write_secrets(kept: Webhooks, known: Records, webhook: Webhook, secret: str) -> None:
    """Write a new webhook's first secret, and remove those of webhooks that were never written or half deleted.

    `known` are the webhooks' records.
    """
    living = {one.uid for one in all_of(known).values()}
    moment = datetime.now(UTC)

    def write(records: Records) -> dict[str, str | None]:
        orphans = {uid: None for uid, text in records.items() if uid not in living and _made_before(text, moment)}
        return {**orphans, webhook.uid: signing.written([signing.Secret(secret)], stamp(moment))}

    kept.secrets.change(write)


def _made_before(text: str, moment: datetime) -> bool:
    created = signing.made(text)
    return created is None or moment - created > ORPHANED


def _check_room(records: Records, new: Webhook) -> None:
    """Raises TooManyWebhooks unless there is room for a new webhook."""
    others = records.keys() - {new.key}
    owned = sum(parts_of(key)[0] == new.owner for key in others)
    if len(others) >= MOST or (new.owner is not None and owned >= MOST_OF_A_CUSTOMER):
        raise TooManyWebhooks()


def _deliveries(context: Context, webhook: Webhook) -> Deliveries:
    return _read(context.records(deliveries.KIND).get(webhook.uid), webhook)


def _read(record: Record | None, webhook: Webhook) -> Deliveries:
    """The deliveries in a record; none if there is no record, or the webhook was enabled again since."""
    try:
        known = Deliveries() if record is None else deliveries.read(record.data)
    except ValueError as error:
        log.warning("%s: %s", webhook.key, error)
        known = Deliveries()
    known.begin(webhook.starts, webhook.after)
    return known


def _shown(context: Context, webhook: Webhook, known: Deliveries) -> Shown:
    state, reason = "ok", None
    if webhook.owner is not None and not context.settings.webhooks_for_customers:
        state, reason = "disabled", NOT_OPEN
    elif known.ended or not webhook.enabled:
        state, reason = "disabled", known.ended or None
    elif known.failures:
        state, reason = "failing", next((one.detail for one in known.tries if one.outcome != "delivered"), None)
    return Shown(webhook, state, reason, known)
