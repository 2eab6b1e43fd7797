"""Signatures, verified by the library that receivers use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from service.webhooks.signing import OVERLAP, PREFIX, Secret, headers, new_secret, read, rotated, signing, written

BODY = '{"type": "crashed", "data": {"reason": "Ü"}}'.encode()


def now() -> datetime:
    return datetime.now(UTC)


def verifies(secret: str, sent: dict[str, str], body: bytes = BODY) -> bool:
    """Whether a receiver with this secret accepts the delivery."""
    try:
        Webhook(secret).verify(body, sent)
    except WebhookVerificationError:
        return False
    return True


def test_the_library_accepts_what_is_signed() -> None:
    """With the secret as it is shown; another secret, id or body, and an old time, are refused."""
    secret = new_secret()
    sent = dict(headers([Secret(secret)], "0123abcd", now(), BODY))
    assert sent["webhook-id"] == "0123abcd"
    assert verifies(secret, sent)
    assert not verifies(new_secret(), sent)
    assert not verifies(secret, {**sent, "webhook-id": "other"})
    assert not verifies(secret, sent, BODY + b" ")
    assert not verifies(secret, dict(headers([Secret(secret)], "0123abcd", now() - timedelta(hours=1), BODY)))


def test_it_is_signed_as_the_library_signs() -> None:
    """The same bytes."""
    secret, moment = new_secret(), now()
    expected = Webhook(secret).sign("id", moment, BODY.decode())
    assert headers([Secret(secret)], "id", moment, BODY)["webhook-signature"] == expected


def test_secrets_are_long_and_differ() -> None:
    """256 bits, base64 behind the prefix."""
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(secret.startswith(PREFIX) and len(secret) == len(PREFIX) + 44 for secret in made)


def test_an_earlier_secret_signs_for_a_day() -> None:
    """Receivers with either secret accept a delivery in that time; later only those with the new one do."""
    old, new, moment = new_secret(), new_secret(), now()
    known = rotated([Secret(old)], new, moment)
    assert [secret.text for secret in known] == [new, old]
    during, later = moment + OVERLAP - timedelta(seconds=1), moment + OVERLAP
    assert [secret.text for secret in signing(known, during)] == [new, old]
    assert [secret.text for secret in signing(known, later)] == [new]
    sent = dict(headers(known, "id", now(), BODY))
    assert verifies(old, sent)
    assert verifies(new, sent)


def test_rotating_again_leaves_the_first_secret_its_time() -> None:
    """The answer to a rotation may be lost; a receiver that knows only the first secret goes on, for a day in all."""
    first, second, third, moment = new_secret(), new_secret(), new_secret(), now()
    once = rotated([Secret(first)], second, moment)
    twice = rotated(once, third, moment + timedelta(hours=1))
    assert [secret.text for secret in twice] == [third, second, first]
    assert [secret.until for secret in twice] == [None, moment + timedelta(hours=25), moment + OVERLAP]
    assert len(signing(rotated(twice, "whsec_", moment + timedelta(hours=24)), moment + timedelta(hours=24))) == 3


def test_rotations_are_bounded() -> None:
    """Only the last few earlier secrets are kept."""
    known: tuple[Secret, ...] = (Secret("whsec_0"),)
    for number in range(1, 10):
        known = rotated(known, f"whsec_{number}", now())
    assert [secret.text for secret in known] == ["whsec_9", "whsec_8", "whsec_7", "whsec_6"]


def test_what_is_written_is_read() -> None:
    """Times to the second."""
    moment = now().replace(microsecond=0)
    known = rotated([Secret(new_secret())], new_secret(), moment)
    assert tuple(read(written(known))) == known


@pytest.mark.parametrize("text", ["", "{}x", "[1]", '[{"until": null}]', '[{"secret": "whsec_hush", "until": "x"}]'])
def test_a_mistake_does_not_quote_a_secret(text: str) -> None:
    """The message may get into a log."""
    with pytest.raises(ValueError, match="cannot be read") as caught:
        read(text)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
