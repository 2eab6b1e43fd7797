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
