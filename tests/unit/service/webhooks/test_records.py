"""Webhooks as they are kept, and what they want."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from service.tokens import Token
from service.webhooks.addresses import Reach
from service.webhooks.records import NAME, Webhook, all_of, key_of, parts_of, read, written
from service.webhooks.urls import mistake
from tests.support.receivers import networks

PLAIN = Webhook(
    uid="0" * 20, owner=None, name="shop", url="https://shop.example.com/", types=None, customer=None, server=None,
    servers=None, enabled=True, starts=1, after=0, created="2026-11-27T12:00:00Z", made_by="shop",
)  # fmt: skip
FULL = replace(
    PLAIN, owner="a.c_Me", types=("crashed", "stopped"), customer="a.c_Me", server=7, servers=(7, 8), test="test-1",
    test_asked="2026-11-27T12:00:00Z", enabled=False,
)  # fmt: skip


@pytest.mark.parametrize("webhook", [PLAIN, FULL])
def test_what_is_written_is_read(webhook: Webhook) -> None:
    """Owner and name are in the key alone."""
    assert read(webhook.key, written(webhook)) == webhook


def test_a_key_belongs_to_one_owner_and_name() -> None:
    """A customer's name may have dots, a webhook's may not."""
    for owner, name in ((None, "shop"), ("acme", "shop"), ("a.b", "shop"), ("a", "b-shop")):
        assert parts_of(key_of(owner, name)) == (owner, name)


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", '{"uid": 1}', written(PLAIN).replace('"starts":1', '"starts":"x"')]
)
def test_a_damaged_record_is_left_out(text: str) -> None:
    """The others stay, and the report does not quote it."""
    reports: list[tuple[str, str]] = []
    found = all_of({"bad": text, "shop": written(PLAIN)}, lambda *report: reports.append(report))
    assert found == {"shop": PLAIN}
    assert reports == [("bad", "the webhook bad cannot be read")]


def test_names_are_names_of_labels() -> None:
    """Short, in lower case, without dots."""
    assert all(re.fullmatch(NAME, name) for name in ("a", "shop-2", "x" * 32))
    assert not any(re.fullmatch(NAME, name) for name in ("", "A", "-a", "a-", "a.b", "a_b", "x" * 33, "a\n"))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, True),
        ({"types": ("crashed",)}, True),
        ({"types": ("stopped",)}, False),
        ({"customer": "acme"}, True),
        ({"customer": "other"}, False),
        ({"server": 7}, True),
        ({"server": 8}, False),
        ({"servers": (7, 8)}, True),
        ({"servers": (8,)}, False),
        ({"types": ("crashed",), "customer": "acme", "server": 7, "servers": (7,)}, True),
    ],
)
def test_it_gets_what_it_asks_for(changes: dict[str, object], wanted: bool) -> None:
    """Every condition has to hold."""
    assert replace(PLAIN, **changes).wants("crashed", "acme", 7) is wanted  # type: ignore[arg-type]


def test_that_events_were_dropped_concerns_everyone() -> None:
    """Unless it asks for other types alone."""
    assert FULL.types is not None
    assert replace(FULL, types=None).wants("dropped", None, 0)
    assert replace(FULL, types=("dropped",)).wants("dropped", None, 0)
    assert not FULL.wants("dropped", None, 0)


def test_an_event_without_a_customer_is_no_customers() -> None:
    """Only a webhook for all gets it."""
    assert PLAIN.wants("crashed", None, 7)
    assert not replace(PLAIN, customer="acme").wants("crashed", None, 7)


def test_who_may_see_it() -> None:
    """An unconfined token sees all; a customer's sees his own, as far as it reaches."""

    def token(customer: str | None = None, *servers: int) -> Token:
        return Token("t", "", frozenset({"webhook"}), customer, frozenset(servers) if servers else None)

    mine = replace(PLAIN, owner="acme", customer="acme")
    few = replace(mine, servers=(7,))
    for caller, seen in (
        (token(), (True, True, True)),
        (token("acme"), (False, True, True)),
        (token("acme", 7, 8), (False, False, True)),
        (token("acme", 8), (False, False, False)),
        (token("other"), (False, False, False)),
        (token(None, 7), (False, False, False)),
    ):
        assert tuple(webhook.seen_by(caller) for webhook in (PLAIN, mine, few)) == seen


LISTED = Reach(listed=networks("10.1.0.0/16"))


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example.com", "https://shop.example.com:8443/a?b=c", "https://8.8.8.8/", "https://[2a00::1]:1/",
        "https://xn--mnchen-3ya.example/", "https://a_b.example.com/%C3%BC", "HTTPS://Shop.Example.com/",
    ],
)  # fmt: skip
def test_a_url_of_the_internet_is_fine(url: str) -> None:
    """By https."""
    assert mistake(url, Reach()) is None


@pytest.mark.parametrize(
    "url",
    [
        "", "shop.example.com", "http://shop.example.com/", "ftp://shop.example.com/", "https://", "https:///a",
        "https://user@shop.example.com/", "https://user:pass@shop.example.com/", "https://:pass@shop.example.com/",
        "https://shop.example.com/#a", "https://shop.example.com:0/", "https://shop.example.com:99999/",
        "https://shop.example.com:x/", "https://[::1", "https://sh op.example.com/", "https://shop.example.com/\n",
        "https://shöp.example.com/", "https://shop.example.com/" + "a" * 2000, "https://10.0.0.1/", "https://[::1]/",
        "https://127.0.0.1/", "https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/", "file:///etc/passwd",
        "https://shop.example.com\\@other/", "https://*/", "http://10.1.0.1/",
    ],
)  # fmt: skip
def test_every_other_url_is_refused(url: str) -> None:
    """With what is wrong."""
    assert mistake(url, Reach())


def test_what_the_operator_lists_may_be_named() -> None:
    """Also without encryption."""
    for url in ("http://10.1.0.1/", "https://10.1.0.1/", "http://receiver.tools.svc.cluster.local:8080/"):
        assert mistake(url, LISTED) is None
    assert mistake("http://10.2.0.1/", LISTED)
    assert mistake("http://8.8.8.8/", LISTED)
