"""The signature of a delivery, as Standard Webhooks has it, and the secrets that it is made with. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from service.kube.times import stamp

PREFIX = "whsec_"
OVERLAP = timedelta(hours=24)
"""For how long an earlier secret signs beside the new one."""
MOST_EARLIER = 3
"""How many earlier secrets sign at most. One rotation may be followed by another, when its answer was lost."""
_BYTES = 32


@dataclass(frozen=True)
class Secret:
    """A secret; `until` is when it stops to sign, None for the newest."""

    text: str
    until: datetime | None = None


def new_secret() -> str:
    """A new random secret, with 256 bits of entropy."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def rotated(earlier: Iterable[Secret], new: str, now: datetime) -> tuple[Secret, ...]:
    """The secrets after a rotation, the newest first."""
    kept = [secret if secret.until else replace(secret, until=now + OVERLAP) for secret in signing(earlier, now)]
    return (Secret(new), *kept[:MOST_EARLIER])


def signing(known: Iterable[Secret], now: datetime) -> list[Secret]:
    """Those that sign at this moment."""
    return [secret for secret in known if secret.until is None or now < secret.until]


def headers(known: Iterable[Secret], id: str, now: datetime, body: bytes) -> Mapping[str, str]:
    """The headers of one try: the delivery's id, when this try is made, and a signature by each secret."""
    seconds = int(now.timestamp())
    signed = f"{id}.{seconds}.".encode() + body
    signatures = (f"v1,{_mac(secret.text, signed)}" for secret in signing(known, now))
    return {"webhook-id": id, "webhook-timestamp": str(seconds), "webhook-signature": " ".join(signatures)}


def written(known: Iterable[Secret], made: str = "") -> str:
    """The secrets as they are kept; `made` is when the webhook was (RFC 3339)."""
    entries = [{"secret": secret.text, "until": stamp(secret.until) if secret.until else None} for secret in known]
    return json.dumps({"made": made, "secrets": entries})


def read(text: str) -> Sequence[Secret]:
    """The kept secrets. Raises ValueError, which does not quote them."""
    try:
        return [
            Secret(str(entry["secret"]), datetime.fromisoformat(entry["until"]) if entry["until"] else None)
            for entry in json.loads(text)["secrets"]
        ]
    except (ValueError, TypeError, KeyError):
        raise ValueError("the secrets of a webhook cannot be read") from None


def made(text: str) -> datetime | None:
    """When the webhook of kept secrets was made; None if that cannot be read, or they were rotated since."""
    try:
        return datetime.fromisoformat(json.loads(text)["made"])
    except (ValueError, TypeError, KeyError):
        return None


def _mac(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
