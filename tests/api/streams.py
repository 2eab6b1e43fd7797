"""Answers that go on and on, as the test client receives them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.api.conftest import Client


def listen(client: Client, path: str, *, events: bool = False, token: str = "shop", **headers: str) -> Iterator[str]:
    """What a client is sent, piece by piece."""
    if events:
        headers["Accept"] = "text/event-stream"
    answer = client.get(path, headers=headers, token=token)
    assert answer.status_code == 200, answer.text
    assert answer.mimetype == ("text/event-stream" if events else "text/plain")
    return (piece.decode() for piece in answer.iter_encoded())


def until_text(pieces: Iterator[str], end: str) -> str:
    """What a client is sent until `end` has come."""
    text = ""
    while end not in text:
        text += next(pieces)
    return text
