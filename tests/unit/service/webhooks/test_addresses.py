"""Which addresses a webhook may reach."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from service.webhooks.addresses import Reach, is_public, literal, unwrapped
from tests.support.receivers import networks

INSIDE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.9.9.9",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.7", "224.0.0.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "::7f00:1", "::10.0.0.1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1",
    "100::1", "2001::1", "2001:10::1", "2001:db8::1", "3fff::1", "4000::1", "5f00::1", "64:ff9b:1::a00:1",
    # IPv4 addresses in others.
    "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1", "64:ff9b::7f00:1",
    "2002:a00:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::",
]  # fmt: skip
OUTSIDE = [
    "8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "198.17.255.255",
    "198.20.0.1", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "2400::1", "::ffff:8.8.8.8", "64:ff9b::808:808",
]  # fmt: skip


@pytest.mark.parametrize("text", INSIDE)
def test_nothing_inside_may_be_reached(text: str) -> None:
    """Neither plainly nor wrapped into an IPv6 address."""
    assert not is_public(ip_address(text))
    assert not Reach().allows(ip_address(text))


@pytest.mark.parametrize("text", OUTSIDE)
def test_the_internet_may_be_reached(text: str) -> None:
    """The addresses next to those that may not, too."""
    assert Reach().allows(ip_address(text))


@pytest.mark.parametrize("text", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd00::5"])
def test_what_the_operator_lists_may_be_reached(text: str) -> None:
    """However it is written; the rest of the inside still may not."""
    reach = Reach(listed=networks("10.1.2.0/24, fd00::/64"))
    assert reach.allows(ip_address(text))
    assert reach.is_listed(ip_address(text))
    assert not reach.allows(ip_address("10.1.3.3"))
    assert not reach.allows(ip_address("::ffff:10.1.3.3"))
    assert not reach.is_listed(ip_address("8.8.8.8"))


@pytest.mark.parametrize("text", ["8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1", "9.9.9.9"])
def test_the_clusters_public_addresses_may_not_be_reached(text: str) -> None:
    """What the operator refuses, and the nodes' own."""
    inside = frozenset({ip_address("9.9.9.9")})
    reach = Reach(refused=networks("8.8.8.0/24,2606:4700::/32"), inside=lambda: inside)
    assert not reach.allows(ip_address(text))
    assert reach.allows(ip_address("1.1.1.1"))


def test_the_list_goes_before_the_clusters_own_addresses() -> None:
    """An operator may list a receiver that runs in the cluster."""
    inside = frozenset({ip_address("9.9.9.9")})
    assert Reach(networks("9.9.9.9/32"), networks("9.9.9.0/24"), lambda: inside).allows(ip_address("9.9.9.9"))


def test_what_is_wrapped_is_unwrapped() -> None:
    """IPv4-mapped, NAT64 and 6to4."""
    assert str(unwrapped(ip_address("::ffff:1.2.3.4"))) == "1.2.3.4"
    assert str(unwrapped(ip_address("64:ff9b::1.2.3.4"))) == "1.2.3.4"
    assert str(unwrapped(ip_address("2002:102:304::9"))) == "1.2.3.4"
    assert str(unwrapped(ip_address("2a00::9"))) == "2a00::9"


def test_an_address_in_a_url_is_one() -> None:
    """A name is none, even one that looks like a number; that is resolved and checked like every name."""
    assert str(literal("[::1]")) == "::1"
    assert str(literal("10.0.0.1")) == "10.0.0.1"
    assert literal("2130706433") is None
    assert literal("shop.example.com") is None
