"""The functions in docs/api.md that verify deliveries to webhooks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.webhooks.signing import Secret, headers, new_secret, rotated
from tests.docs.snippets import block

BODY = '{"type": "crashed", "data": {"reason": "Ü"}}'.encode()
Verify = Callable[[str, Mapping[str, str], bytes], bool]


def by_python(secret: str, sent: Mapping[str, str], body: bytes) -> bool:
    """What the function in Python says."""
    names: dict[str, Any] = {}
    exec(block("docs/api.md", "import base64"), names)
    return bool(names["is_genuine"](secret, dict(sent), body))


def by_php(secret: str, sent: Mapping[str, str], body: bytes) -> bool:
    """What the function in PHP says."""
    call = "[$secret, $headers] = json_decode($argv[1], true);\n"
    call += "var_dump(is_genuine($secret, $headers, stream_get_contents(STDIN)));"
    code = block("docs/api.md", "/** Whether a delivery is from the API.") + call
    command = ["php", "-d", "error_reporting=-1", "-r", code, json.dumps([secret, dict(sent)])]
    done = subprocess.run(command, input=body, capture_output=True, check=True)
    assert done.stdout in (b"bool(true)\n", b"bool(false)\n"), done.stdout
    return done.stdout == b"bool(true)\n"


@pytest.mark.parametrize("verify", [by_python, pytest.param(by_php, marks=pytest.mark.tools)])
def test_a_delivery_is_verified_as_written(verify: Verify) -> None:
    """Genuine ones are, also while the secret is rotated; every other one is not."""
    old, new, moment = new_secret(), new_secret(), datetime.now(UTC)
    sent = headers(rotated([Secret(old)], new, moment), "id", moment, BODY)
    assert verify(old, sent, BODY)
    assert verify(new, sent, BODY)
    assert not verify(new_secret(), sent, BODY)
    assert not verify(new, sent, BODY + b" ")
    assert not verify(new, {**sent, "webhook-id": "other"}, BODY)
    assert not verify(new, {**sent, "webhook-timestamp": str(int(sent["webhook-timestamp"]) + 1)}, BODY)
    assert not verify(new, {}, BODY)
    assert not verify(new, {**sent, "webhook-timestamp": "soon"}, BODY)
    assert not verify(new, headers([Secret(new)], "id", moment - timedelta(minutes=6), BODY), BODY)


@pytest.mark.parametrize("verify", [by_python, pytest.param(by_php, marks=pytest.mark.tools)])
@pytest.mark.parametrize(
    "hostile",
    [
        {"webhook-timestamp": "²"},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-timestamp": "\n"},
        {"webhook-signature": "ü"},
        {"webhook-id": "ü"},
        {"webhook-signature": "v1,"},
    ],
)
def test_a_hostile_delivery_is_refused_and_breaks_nothing(verify: Verify, hostile: Mapping[str, str]) -> None:
    """Whatever its headers are, the answer is no, and not an error of the receiver."""
    secret, moment = new_secret(), datetime.now(UTC)
    assert not verify(secret, {**headers([Secret(secret)], "id", moment, BODY), **hostile}, BODY)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_bytes_that_are_no_utf8_are_refused_as_well(name: str) -> None:
    """Some of Python's web servers make lone surrogates of them."""
    secret, moment = new_secret(), datetime.now(UTC)
    assert not by_python(secret, {**headers([Secret(secret)], "id", moment, BODY), name: "\udcff"}, BODY)
