"""Which addresses a webhook may reach. Pure.

Only what is reachable all over the Internet by IANA's registries of special-purpose addresses may be reached, and what
the operator lists. https://www.iana.org/assignments/iana-ipv4-special-registry/ and .../iana-ipv6-special-registry/.
Python's `is_global` will not do: it has changed between patch versions, and is true for multicast.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SPECIAL_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers, and by some clusters for pods
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, with the clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocols
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # automatic multicast tunneling
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_UNICAST_V6 = IPv6Network("2000::/3")
"""Everything that is global unicast so far. Outside are loopback, link-local, private and multicast addresses."""
SPECIAL_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocols, with Teredo and ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4; `unwrapped` has taken out the IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
# What holds an IPv4 address, and how many bits follow it. 64:ff9b:1::/48 may be laid out in several ways (RFC 8215), so
# it is only refused, as everything outside of 2000::/3 is.
_WRAPPING = (
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped: the kernel connects with IPv4
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("2002::/16"), 80),  # 6to4
)


@dataclass(frozen=True)
class Reach:
    """What webhooks may reach.

    Attributes:
        listed: Ranges that the operator lists: they may be reached although they are inside, and with http too.
        refused: Ranges that the operator refuses, although they look like the Internet: a cluster's public addresses.
        inside: The addresses of the cluster's own nodes, at this moment.
    """

    listed: tuple[Network, ...] = ()
    refused: tuple[Network, ...] = ()
    inside: Callable[[], Collection[Address]] = frozenset

    def is_listed(self, address: Address) -> bool:
        """Whether the operator lists the address, or the IPv4 address in it."""
        return _any_has(self.listed, address) or _any_has(self.listed, unwrapped(address))

    def allows(self, address: Address) -> bool:
        """Whether a webhook may be delivered to the address."""
        if self.is_listed(address):
            return True
        plain = unwrapped(address)
        if not is_public(address) or _any_has(self.refused, address) or _any_has(self.refused, plain):
            return False
        return plain not in self.inside()


def is_public(address: Address) -> bool:
    """Whether the address is one that everyone on the Internet reaches, and so is an IPv4 address in it."""
    plain = unwrapped(address)
    if isinstance(plain, IPv4Address):
        return not _any_has(SPECIAL_V4, plain)
    return plain in _UNICAST_V6 and not _any_has(SPECIAL_V6, plain)


def unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for (IPv4-mapped, NAT64, 6to4), or else the address itself."""
    if isinstance(address, IPv6Address):
        for network, bits in _WRAPPING:
            if address in network:
                return IPv4Address(int(address) >> bits & 0xFFFFFFFF)
    return address


def literal(host: str) -> Address | None:
    """The address that a URL's host is, or None if it is a name."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None


def _any_has(ranges: Iterable[Network], address: Address) -> bool:
    return any(address in network for network in ranges)
