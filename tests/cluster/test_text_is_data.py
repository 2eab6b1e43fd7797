"""A customer's text reaches the game unchanged: nothing on the way interprets it."""

import json
from collections.abc import Callable
from typing import Any

from mcstatus import JavaServer

from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.support.waiting import until

NASTY = (
    "a'b\"c `id` ; {{ .Release.Name }} {% if 1 %} {{ 7 * 7 }} $(RCON_PORT) $$(EULA) $EULA \\n %s 😀 é"
    "\nline: two\n--- %RCON_PASSWORD% %env:EULA% %date:YYYY% \\u0041"
)
#: The form for an image that interprets `%NAME%` and `\\u0041`. See tests/unit/service/games/test_minecraft.py.
SENT = NASTY.replace("%", "%MOTD_PERCENT%").replace("\\", "%MOTD_BACKSLASH%")


def environment(cluster: Cluster, server: int) -> dict[str, str]:
    """The environment of the game's own process."""
    text = cluster.run(
        "kubectl", "-n", SERVERS_NAMESPACE, "exec", f"server-{server}-0", "--", "cat", "/proc/self/environ"
    )
    return dict(variable.split("=", 1) for variable in text.split("\0") if variable)


def shown_to_players(host: str, port: int) -> str:
    """The line under the server's name, as a player's client sees it."""
    # A string, or an object that has the string in `text`.
    seen: list[Any] = []

    def answered() -> bool:
        seen.append(JavaServer(host, port, timeout=10).status().raw["description"])
        return True

    # A busy machine may need several tries.
    until(answered, 30, "the game does not answer", not_yet=(OSError,))
    return str(seen[0] if isinstance(seen[0], str) else seen[0]["text"])


def test_quotes_templates_and_newlines_reach_the_game_as_text(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The API's answer, the container's environment and a player's client show the text unchanged."""
    server = new_server()
    cluster.create(server, options={"motd": NASTY, "seed": "$(HOME)"})
    cluster.until_state(server, "running")
    assert cluster.status(server)["options"] == {"motd": NASTY, "seed": "$(HOME)"}
    seen = environment(cluster, server)
    assert (seen["MOTD"], seen["SEED"]) == (SENT, "$(HOME)")
    port = cluster.done("GET", f"/api/v1/server/{server}/port/primary")
    assert shown_to_players(port["host"], port["port"]) == NASTY


def test_a_change_of_options_is_text_too(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A PATCH stores the text in helm's values and keeps it unchanged, as does a later PATCH."""
    server = new_server()
    cluster.create(server, start=False)
    cluster.done("PATCH", f"/api/v1/server/{server}/", {"options": {"motd": NASTY}})
    cluster.done("PATCH", f"/api/v1/server/{server}/", {"ram_gb": 2})
    statefulset = cluster.get("statefulset", f"server-{server}")
    game = statefulset["spec"]["template"]["spec"]["containers"][0]
    written = {variable["name"]: variable.get("value") for variable in game["env"]}
    assert written["MOTD"] == SENT.replace("$", "$$")
    record = json.loads(statefulset["metadata"]["annotations"]["gameserver/server"])
    assert record["options"] == {"motd": NASTY}
