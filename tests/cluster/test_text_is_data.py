"""What a customer writes arrives in the game as text, and as nothing else."""

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
#: How it is sent to an image that reads `%NAME%` and `\\u0041`: tests/unit/service/games/test_minecraft.py.
SENT = NASTY.replace("%", "%MOTD_PERCENT%").replace("\\", "%MOTD_BACKSLASH%")


def environment(cluster: Cluster, server: int) -> dict[str, str]:
    """The environment of the game's own process."""
    text = cluster.run(
        "kubectl", "-n", SERVERS_NAMESPACE, "exec", f"server-{server}-0", "--", "cat", "/proc/self/environ"
    )
    return dict(variable.split("=", 1) for variable in text.split("\0") if variable)


def shown_to_players(host: str, port: int) -> str:
    """The line under the server's name; a busy machine may need another try."""
    # A string, or an object that has the string in `text`.
    seen: list[Any] = []

    def answered() -> bool:
        try:
            seen.append(JavaServer(host, port, timeout=10).status().raw["description"])
        except OSError:
            return False
        return True

    until(answered, 30, "the game does not answer")
    return str(seen[0] if isinstance(seen[0], str) else seen[0]["text"])


def test_quotes_templates_and_newlines_reach_the_game_as_text(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """In the API's answer, in the container's environment, and where a player reads it."""
    server = new_server()
    cluster.create(server, options={"motd": NASTY, "seed": "$(HOME)"})
    cluster.until_state(server, "running")
    assert cluster.status(server)["options"] == {"motd": NASTY, "seed": "$(HOME)"}
    seen = environment(cluster, server)
    assert (seen["MOTD"], seen["SEED"]) == (SENT, "$(HOME)")
    port = cluster.done("GET", f"/api/v1/server/{server}/port/primary")
    assert shown_to_players(port["host"], port["port"]) == NASTY


def test_a_change_of_options_is_text_too(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The way of a PATCH, through helm's stored values, changes no letter."""
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
