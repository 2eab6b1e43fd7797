"""Which addresses (URLs) a webhook may have. Pure; what a host name leads to is checked at each try."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from service.webhooks.addresses import Reach, literal

LONGEST = 2000
_PRINTABLE = re.compile(r"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")


def mistake(url: str, reach: Reach) -> str | None:
    """What is wrong with the URL, in words that follow the name of the field; None if nothing is."""
    if len(url) > LONGEST:
        return f"must have at most {LONGEST} characters"
    if not _PRINTABLE.fullmatch(url):
        return "must be a URL in printable ASCII characters, without spaces"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "must be a valid URL"
    schemes = ("https", "http") if reach.listed else ("https",)
    if parts.scheme not in schemes:
        return f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    if parts.username is not None or parts.password is not None:
        return "must not contain a user name or a password, because a webhook's URL is shown"
    if parts.fragment:
        return "must not have a fragment"
    host = parts.hostname or ""
    if port == 0 or not (host and (_HOST.fullmatch(host) or literal(host))):
        return "must name a host"
    address = literal(host)
    if address is not None and not (reach.allows(address) and (parts.scheme == "https" or reach.is_listed(address))):
        return "must not lead to an address inside the cluster or of a private network"
    return None
