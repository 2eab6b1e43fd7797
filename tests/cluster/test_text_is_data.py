"""What a customer writes arrives in the game as text, and as nothing else."""

import json
from collections.abc import Callable

from mcstatus import JavaServer

from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster

NASTY = (
    "a'b\"c `id` ; {{ .Release.Name }} {% if 1 %} {{ 7 * 7 }} $(RCON_PORT) $$(EULA) $EULA \\n %s 😀 é\nline: two\n---"
)


def environment(cluster: Cluster, server: int) -> dict[str, str]:
    """The environment of the game's own process."""
    text = cluster.run(
        "kubectl", "-n", SERVERS_NAMESPACE, "exec", f"server-{server}-0", "--", "cat", "/proc/self/environ"
    )
    return dict(variable.split("=", 1) for variable in text.split("\0") if variable)


def test_quotes_templates_and_newlines_reach_the_game_as_text(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """In the API's answer, in the container's environment, and where a player reads it."""
    server = new_server()
    cluster.create(server, options={"motd": NASTY, "seed": "$(HOME)"})
    cluster.until_state(server, "running")
    assert cluster.status(server)["options"] == {"motd": NASTY, "seed": "$(HOME)"}
    seen = environment(cluster, server)
    assert (seen["MOTD"], seen["SEED"]) == (NASTY, "$(HOME)")
    port = cluster.done("GET", f"/api/v1/server/{server}/port/primary")
    description = JavaServer.lookup(f"{port['host']}:{port['port']}").status().raw["description"]
    text = description if isinstance(description, str) else description["text"]
    assert text == NASTY


def test_a_change_of_options_is_text_too(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The way of a PATCH, through helm's stored values, changes no letter."""
    server = new_server()
    cluster.create(server, start=False)
    cluster.done("PATCH", f"/api/v1/server/{server}/", {"options": {"motd": NASTY}})
    cluster.done("PATCH", f"/api/v1/server/{server}/", {"ram_gb": 2})
    found = cluster.get("statefulset", f"server-{server}")
    game = found["spec"]["template"]["spec"]["containers"][0]
    written = {variable["name"]: variable.get("value") for variable in game["env"]}
    assert written["MOTD"] == NASTY.replace("$", "$$")
    record = json.loads(found["metadata"]["annotations"]["gameserver/server"])
    assert record["options"] == {"motd": NASTY}
