"""Commands reach real games by an external console and by standard input, and a game that hangs hangs nobody else."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import requests
import yaml

from local import nodes
from local.paths import ROOT
from tests.clients.teeworlds import Player
from tests.cluster.conftest import Cluster
from tests.cluster.controller.place import Place, place_of
from tests.cluster.replicas import NAMESPACE as API_NAMESPACE
from tests.cluster.replicas import frozen, processes_of
from tests.support.gunicorn import Served
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

#: Instead of a game: it numbers the lines that it gets.
SHELL = """
n=0; echo ready
while IFS= read -r line; do
  n=$((n+1)); echo "got $n $line"
  if [ "$line" = slow ]; then sleep 1; echo "slow is done"; fi
done
echo "my input has ended"
"""
TEEWORLDS, OWN = 1, 2


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    """An API, a Teeworlds server, and a server of an operator's own game, which is the shell."""
    games = tmp_path / "games"
    games.mkdir()
    installed = json.loads(cluster.run("helm", "-n", API_NAMESPACE, "get", "values", "api", "-o", "json"))
    values = {
        "image": installed["serverValues"]["games"]["teeworlds"]["image"],
        "command": ["bash", "-c", SHELL],
        "ports": [{"name": "primary", "port": 4000, "protocol": "TCP"}],
        "heap": {"environmentVariable": ""},
        "rcon": {"enabled": False},
        "probe": {"command": ["true"]},
        "terminationGracePeriodSeconds": 1,
    }
    (games / "own.values.yaml.j2").write_text(json.dumps(values))
    (games / "own.game.yaml").write_text("name: own\ntitle: Own\ndescription: A shell.\nconsole: {kind: stdin}\n")
    (games / "own.options.schema.json").write_text('{"type": "object", "additionalProperties": false}')
    with place_of(cluster, tmp_path, api_on_node=True, GAMES_DIR=str(games), CONSOLE_STDIN="true") as place:
        for id, game in ((TEEWORLDS, "teeworlds"), (OWN, "own")):
            place.call("POST", f"/server/{id}/", {"game": game, "ram_gb": 1, "disk_gb": 1})
        place.until_running(TEEWORLDS, OWN, seconds=180)
        yield place


def command(place: Place, id: int, line: str) -> str:
    """What the game says to a command."""
    return str(place.call("POST", f"/server/{id}/command", {"command": line})["output"])


def try_command(place: Place, id: int, line: str) -> requests.Response:
    return place.send("POST", f"/server/{id}/command", {"command": line})


def log_of(place: Place, id: int) -> str:
    return place.send("GET", f"/server/{id}/log?tail=1000").text


def hung(place: Place, id: int, program: str) -> AbstractContextManager[None]:
    """While the program of the server's pod does nothing."""
    pod = place.pod(id)["metadata"]["uid"]
    pids = [pid for pid, command in processes_of(pod) if command.startswith(program.encode())]
    assert pids, f"no {program} in {pod}"
    return frozen(pids)


def test_commands_reach_games_without_rcon(place: Place) -> None:
    """Their effect is in the game and in its log. While one game hangs, its call ends, and another's is answered."""
    port = place.call("PATCH", f"/server/{TEEWORLDS}/port/primary")
    player = Player(port["host"], port["port"])
    assert player.refused == ""
    assert "id=0" in command(place, TEEWORLDS, "status")
    player.leave()
    assert command(place, TEEWORLDS, "sv_map").endswith("[Console]: Value: dm1")
    assert command(place, TEEWORLDS, "say the round ends soon") == ""
    until(lambda: "*** the round ends soon" in log_of(place, TEEWORLDS), 30, lambda: log_of(place, TEEWORLDS))

    assert_password_is_hidden(place)

    # The shell has said nothing in time if the machine is busy, but it has got each line, and its input stays open.
    until(lambda: "hello" in command(place, OWN, "hello"), 60, lambda: log_of(place, OWN))
    until(lambda: "$(again)" in command(place, OWN, "$(again) ' \\"), 60, lambda: log_of(place, OWN))

    def another_is_answered_first() -> bool:
        with ThreadPoolExecutor(1) as pool:
            refused = pool.submit(try_command, place, TEEWORLDS, "sv_map")
            answered = try_command(place, OWN, "while the other hangs")
            first = not refused.done()
            answer = refused.result()
        assert (answer.status_code, answer.json()["type"]) == (504, "/problems/game-does-not-answer")
        return first and answered.status_code == 200

    with hung(place, TEEWORLDS, "/usr/games/teeworlds-server"):
        until(another_is_answered_first, 120)
    until(lambda: command(place, TEEWORLDS, "sv_map").endswith("Value: dm1"), 60)

    # The line waits in the game's input.
    with hung(place, OWN, "bash"):
        began = time.monotonic()
        assert command(place, OWN, "for later") == ""
        assert "for later" not in log_of(place, OWN)
        assert time.monotonic() - began < 60
    until(lambda: "for later" in log_of(place, OWN), 60)
    assert "my input has ended" not in log_of(place, OWN)

    # The image ends its game by the same console.
    place.call("PATCH", f"/server/{TEEWORLDS}/stop")
    until(lambda: place.call("GET", f"/server/{TEEWORLDS}/")["state"] == "stopped", 120, place.logged)
    assert place.call("GET", f"/server/{TEEWORLDS}/")["reason"] is None


def assert_password_is_hidden(place: Place) -> None:
    """It is in no command line, in no log, and not on the disk that the customer reads."""
    secret = json.loads(
        place.cluster.run("kubectl", "-n", place.namespace, "get", "secret", f"server-{TEEWORLDS}-econ", "-o", "json")
    )
    password = base64.b64decode(secret["data"]["password"])
    shown = [each for each in Path("/proc").glob("[0-9]*") if password in _command_line(each)]
    assert shown == []
    assert password.decode() not in log_of(place, TEEWORLDS) + place.logged()
    search = "grep -rqsF -f /run/gameserver/econ/password /data; echo $?"
    inside = ("kubectl", "-n", place.namespace, "exec", f"server-{TEEWORLDS}-0", "--", "bash", "-c", search)
    assert place.cluster.run(*inside).strip() == "1"


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.long
def test_a_pod_made_before_has_a_way_in_after_its_next_start(place: Place) -> None:
    """Until then a command says so. An API that is killed while it talks to a game does not end the game's input."""
    for id, key in ((TEEWORLDS, "econ"), (OWN, "stdin")):
        helm = ("helm", "-n", place.namespace)
        values = yaml.safe_load(place.cluster.run(*helm, "get", "values", f"server-{id}", "-o", "yaml"))
        assert values.pop(key)
        chart = str(ROOT / "charts" / "gameserver")
        upgrade = (*helm, "upgrade", f"server-{id}", chart, "--reset-values", "--values", "-")
        place.cluster.run(*upgrade, stdin=yaml.safe_dump(values))

    def type_of(id: int) -> str:
        return str(try_command(place, id, "x").json().get("type"))

    for id in (TEEWORLDS, OWN):
        until(lambda id=id: type_of(id) == "/problems/no-console-yet", 120, lambda id=id: type_of(id))  # type: ignore[misc]
    place.call("PATCH", f"/server/{TEEWORLDS}/restart")
    place.call("PATCH", f"/server/{OWN}/stop")
    until(lambda: place.call("GET", f"/server/{OWN}/")["state"] == "stopped", 120, place.logged)
    place.call("PATCH", f"/server/{OWN}/start")
    place.until_running(TEEWORLDS, OWN, seconds=180)
    until(lambda: try_command(place, TEEWORLDS, "sv_map").status_code == 200, 60)

    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(try_command, place, OWN, "slow")
        until(lambda: "slow" in kept_log(place), 60, lambda: kept_log(place))
        place.api.kill()
        assert broken.exception() is not None
    with another_api(place):
        until(lambda: "goes on" in command(place, OWN, "goes on"), 60, lambda: log_of(place, OWN))
        assert "my input has ended" not in log_of(place, OWN)


def kept_log(place: Place) -> str:
    """The log without the API."""
    return place.cluster.run("kubectl", "-n", place.namespace, "logs", f"server-{OWN}-0")


@contextmanager
def another_api(place: Place) -> Iterator[None]:
    """An API instead of the one that was killed."""
    number, _ = next(iter(nodes.running().items()))
    place.api = Served.start(place.folder, place.environment, within=place.within, host=nodes.Node(number).address)
    try:
        place.api.until_alive()
        yield
    finally:
        place.api.kill()
