"""Text of a game, without what would do something to the terminal of its reader. Pure."""

from __future__ import annotations

import re

from service.plaintext import TURNING

# ECMA-48 escapes: CSI and string sequences as a whole, and any other escape with the characters that belong to it.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
# All other control characters, half characters, and what turns text around.
_HARMFUL = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{TURNING}]")


def plain(text: str) -> str:
    """The text without terminal escapes, control characters other than newlines and tabs, and what turns it around."""
    return _HARMFUL.sub("", _ESCAPES.sub("", text).replace("\r\n", "\n"))


def shortened(text: str, most: int) -> tuple[str, bool]:
    """The text, at most `most` bytes of it in UTF-8, and whether that is less than all."""
    data = text.encode()
    return (text, False) if len(data) <= most else (data[:most].decode(errors="ignore"), True)
