"""JSON that every YAML parser reads as the same value, for games' templates and helm's standard input. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

# The `:` must come within 1,024 characters: https://yaml.org/spec/1.2.2/#742-flow-mappings
_LONGEST_KEY = 1000


def as_yaml(value: Any) -> str:
    """Write `value` as one line of JSON that is also YAML.

    Everything beyond printable ASCII is escaped in YAML's way, because YAML allows fewer characters than JSON. JSON
    escapes a character beyond U+FFFF as two surrogates: one YAML parser reads those as two characters, and another
    (helm's) refuses them. A very long key gets YAML's `? ` in front, which is not JSON, because YAML would not
    recognise it as a key otherwise.

    Raises:
        ValueError: JSON cannot represent the value, such as NaN.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)
    escaped = re.sub(
        r"[^ -~]",
        lambda match: f"\\u{ord(match[0]):04x}" if ord(match[0]) <= 0xFFFF else f"\\U{ord(match[0]):08x}",
        text,
    )
    return re.sub(
        r'"(?:[^"\\]|\\.)*"(: )?',
        lambda match: f"? {match[0]}" if match[1] and len(match[0]) > _LONGEST_KEY else match[0],
        escaped,
    )
