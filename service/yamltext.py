"""JSON that YAML reads as the same: what a game's template and helm's standard input are made of. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

# https://yaml.org/spec/1.2.2/#742-flow-mappings: the `:` has to come within 1,024 characters.
_LONGEST_NAME = 1000


def as_yaml(value: Any) -> str:
    """`value` as one line of JSON, with all beyond printable ASCII escaped as YAML does, which allows less than JSON.

    A name that is too long for YAML to see that it is one has YAML's mark before it, which JSON has not. JSON's own
    escapes of a character beyond U+FFFF, two surrogates, would arrive as two characters in one YAML parser and be
    refused by another (helm's). Raises ValueError for what JSON cannot say, such as NaN.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)
    escaped = re.sub(
        r"[^ -~]",
        lambda found: f"\\u{ord(found[0]):04x}" if ord(found[0]) <= 0xFFFF else f"\\U{ord(found[0]):08x}",
        text,
    )
    return re.sub(
        r'"(?:[^"\\]|\\.)*"(: )?',
        lambda found: f"? {found[0]}" if found[1] and len(found[0]) > _LONGEST_NAME else found[0],
        escaped,
    )
