"""A customer's text changes nothing in the manifests except that text."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.charts.rendering import Manifest, at, render

GAME = "spec.template.spec.containers.0"
NASTY = [
    "{{ .Release.Name }}",
    '{{ fail "x" }}',
    "$(RCON_PASSWORD_FILE)",
    "$$(HOME) $HOME $",
    "line\nimage: evil\n---\nkind: Pod",
    "'\"`\\ # : - ? |",
    "\t\r\n\x0b\x7f\x85\u2028\ufeff😀",
    "*anchor &a !!binary <<: ~ null true 0x1 1e3",
    "",
]
# No NUL, which no environment can hold (a test of its own sees it refused), and no half of a surrogate pair, which
# JSON over HTTP cannot carry.
TEXT = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**53), 2**53), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)
NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True).filter(
    lambda name: name not in ("ENABLE_RCON", "RCON_PORT", "RCON_PASSWORD_FILE", "MEMORY")
)


def expanded(text: str) -> str:
    """The value of a variable in the container, if no other variable is defined.

    See https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/: `$$` is
    one `$`, and `$(NAME)` is replaced.
    """
    return re.sub(r"\$\$|\$\([^)]*\)", lambda found: "$" if found[0] == "$$" else "replaced", text)


def skeleton(manifests: dict[str, Manifest]) -> Any:
    """The manifests without the parts that may differ: the environment, the spec and the password."""
    copy = json.loads(json.dumps(manifests))
    for recorded in ("StatefulSet/server-4711", "PersistentVolumeClaim/server-4711"):
        del copy[recorded]["metadata"]["annotations"]["gameserver/server"]
    del at(copy["StatefulSet/server-4711"], GAME)["env"]
    at(copy["StatefulSet/server-4711"], GAME).pop("args", None)
    del copy["Secret/server-4711-rcon"]["data"]["password"]
    return copy


PLAIN = skeleton(render("gameserver"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    environment=st.dictionaries(NAMES, TEXT, max_size=6),
    options=st.dictionaries(TEXT, JSON, max_size=4),
    customer=TEXT,
    args=st.lists(TEXT, max_size=3),
)
@example(
    environment={f"E{i}": text for i, text in enumerate(NASTY)}, options={t: t for t in NASTY}, customer="", args=NASTY
)
def test_text_changes_nothing_but_itself(
    environment: dict[str, str], options: dict[str, Any], customer: str, args: list[str]
) -> None:
    """Kinds, names, security settings and mounts stay the same, and the text arrives unchanged."""
    server = {"options": options, "customer": customer}
    manifests = render("gameserver", {"environment": environment, "server": server, "args": args})
    assert skeleton(manifests) == PLAIN
    game = at(manifests["StatefulSet/server-4711"], GAME)
    arrived = {variable["name"]: expanded(variable["value"]) for variable in game["env"]}
    assert arrived == {
        **environment,
        "ENABLE_RCON": "true",
        "RCON_PORT": "25575",
        "RCON_PASSWORD_FILE": "/run/gameserver/rcon/password",
        "MEMORY": "1536M",
    }
    assert [expanded(text) for text in game.get("args", [])] == args
    for recorded in ("StatefulSet/server-4711", "PersistentVolumeClaim/server-4711"):
        record = json.loads(manifests[recorded]["metadata"]["annotations"]["gameserver/server"])
        assert record == {"game": "minecraft", "ram_gb": 2, "disk_gb": 10, "options": options, "customer": customer}
