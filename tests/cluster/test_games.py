"""Games other than Minecraft, as real servers that answer in their own protocols, and an operator's own games."""

import json
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from local.paths import ROOT
from service.games import catalogue as games
from service.servers import values
from service.servers.spec import ServerSpec
from tests.clients import udp_ping
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.docs.snippets import COMMANDS, block
from tests.support.waiting import until

ASK: dict[str, Callable[[str, int], object]] = {"luanti": udp_ping.luanti, "teeworlds": udp_ping.teeworlds}
OPTIONS: dict[str, dict[str, Any]] = {
    "luanti": {"name": "Ada's world", "motd": 'Say "hello"', "max_players": 3, "creative": True, "seed": "42"},
    "teeworlds": {"name": "Ada's arena: 100 %", "map": "ctf2", "game_type": "ctf", "max_players": 5},
}
#: Files that a customer may upload: they try to move the game off its address, and set other values.
FILES = {
    "luanti": ("minetest.conf", "bind_address = 127.0.0.1\nport = 31000\nmax_users = 1\n"),
    "teeworlds": ("teeworlds/server.cfg", 'bindaddr 127.0.0.1\nsv_port 9999\nsv_name "Not this"\nsv_motd "Own"\n'),
}
#: Which Secrets with a password a game has.
PASSWORDS: dict[str, list[str]] = {"luanti": [], "teeworlds": ["econ"]}
#: What a game prints when it ends by itself.
ENDED = {"luanti": r"shutting down", "teeworlds": r"ended, with code 0"}


@pytest.mark.parametrize("game", ASK)
def test_a_game_on_udp_is_created_asked_stopped_started_and_deleted(
    game: str, cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """create → running → an answer in the game's protocol → stop → silence → start → the same port → delete.

    A file that the customer uploads meanwhile does not move the game off its address and port.
    """
    server = new_server()
    path = f"/api/v1/server/{server}"
    cluster.create(server, game=game, options=OPTIONS[game])
    cluster.until_state(server, "running")

    port = cluster.done("PATCH", f"{path}/port/primary")
    assert port == {"success": True, "port": port["port"], "protocol": "UDP", "host": cluster.address_of(server)}
    ASK[game](port["host"], port["port"])
    # There is no RCON.
    assert cluster.call("GET", f"{path}/rcon").status_code == 404
    passwords = cluster.get("secret", "-l", f"gameserver/id={server},owner!=helm")["items"]
    assert [secret["metadata"]["name"] for secret in passwords] == [
        f"server-{server}-{name}" for name in PASSWORDS[game]
    ]

    name, text = FILES[game]
    write = ["kubectl", "-n", SERVERS_NAMESPACE, "exec", "-i", f"server-{server}-0", "--", "tee", f"/data/{name}"]
    cluster.run(*write, stdin=text)

    with subprocess.Popen(
        [str(ROOT / ".local/bin/kubectl"), f"--kubeconfig={cluster.kubeconfig}"]
        + ["-n", SERVERS_NAMESPACE, "logs", "-f", f"server-{server}-0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as logs:
        assert logs.stdout is not None
        # Once the game is stopped, kubectl may find no log.
        output = logs.stdout.readline()
        assert cluster.done("PATCH", f"{path}/stop") == {"success": True}
        cluster.until_state(server, "stopped")
        output += logs.stdout.read()
    assert re.search(ENDED[game], output), output
    with pytest.raises(udp_ping.NoAnswer):
        ASK[game](port["host"], port["port"])

    assert cluster.done("PATCH", f"{path}/start") == {"success": True}
    cluster.until_state(server, "running")
    assert cluster.done("PATCH", f"{path}/port/primary") == port
    ASK[game](port["host"], port["port"])

    assert cluster.done("DELETE", f"{path}/") == {"success": True}
    until(lambda: cluster.call("GET", f"{path}/").status_code == 404, 60)


def test_the_options_reach_the_game(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Teeworlds' answer over its protocol has the name, map, game type and number of players of the options."""
    server = new_server()
    cluster.create(server, game="teeworlds", options=OPTIONS["teeworlds"])
    cluster.until_state(server, "running")
    port = cluster.done("PATCH", f"/api/v1/server/{server}/port/primary")
    info = udp_ping.teeworlds(port["host"], port["port"])
    assert (info.name, info.map, info.game_type) == ("Ada's arena: 100 %", "ctf2", "CTF")
    # Players, not spectators.
    assert info.max_players == 5


def test_each_game_refuses_the_options_of_another(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A create with an option of another game answers 422 with the option, and creates nothing."""
    server = new_server()
    body = {"ram_gb": 1, "disk_gb": 1, "game": "luanti", "options": {"difficulty": "hard"}}
    answer = cluster.call("POST", f"/api/v1/server/{server}/", body)
    assert (answer.status_code, answer.json()["errors"]) == (422, {"options.difficulty": ["unknown option"]})
    assert cluster.call("GET", f"/api/v1/server/{server}/").status_code == 404


def test_no_option_reaches_another_games_values() -> None:
    """With all of its options set, a game renders only its own values."""
    catalogue = games.load(games.BUILT_IN)
    operator = {"games": {name: {"podLabels": {"of": name}} for name in catalogue}}
    for name, game in catalogue.items():
        mark = f"mark-of-{name}"
        options = {
            option: mark
            for option, schema in game.schema["properties"].items()
            if schema.get("type") == "string" and not game.errors({option: mark})
        }
        assert options, name
        spec = ServerSpec(game=name, ram_gb=1, disk_gb=1, options=options)
        own = values.values_of(7, spec, game.render(7, spec), operator)
        assert own["podLabels"] == {"of": name}
        for other in catalogue.values():
            theirs = ServerSpec(game=other.name, ram_gb=1, disk_gb=1, options={})
            rendered = values.values_of(7, theirs, other.render(7, theirs), operator)
            assert mark not in json.dumps(rendered)
            if other is not game:
                assert other.errors(dict.fromkeys(options.keys() - other.schema["properties"].keys(), mark))


def test_an_operators_game_goes_from_the_charts_values_into_the_catalogue(cluster: Cluster, tmp_path: Path) -> None:
    """The games of the values file in docs/games.md reach the ConfigMap, and the API loads them from it."""
    operator = _written_in_the_docs()
    (tmp_path / "values.yaml").write_text(operator)
    manifest = cluster.run(
        "helm", "template", "api", str(ROOT / "charts" / "api"), "--values", str(tmp_path / "values.yaml"),
        "--set", "tokens.existingSecret=api-tokens", "--show-only", "templates/configmap-games.yaml",
    )  # fmt: skip
    mounted = tmp_path / "games"
    mounted.mkdir()
    for key, text in yaml.safe_load(manifest)["data"].items():
        (mounted / key).write_text(text)

    catalogue = games.load(games.BUILT_IN, mounted)
    assert set(catalogue) == {"minecraft", "luanti", "teeworlds", "teeworlds-ctf"}
    game = catalogue["teeworlds-ctf"]
    assert game.errors({"name": "Flags", "score_limit": 600}) == {}
    assert game.errors({"map": "dm1"}) == {"options.map": ["unknown option"]}
    spec = ServerSpec(game=game.name, ram_gb=1, disk_gb=1, options={"name": "Flags"})
    assert game.render(1, spec)["environment"] == {"GAME_TYPE": "ctf", "MAP": "ctf2", "SERVER_NAME": "Flags"}


@pytest.fixture
def another_api(cluster: Cluster) -> Iterator[Callable[..., str]]:
    """A function that installs or upgrades a second API for the same servers."""
    name, namespace = f"api-{secrets.token_hex(3)}", "gameserver-system"
    given = json.loads(cluster.run("helm", "get", "values", "api", "-n", namespace, "-o", "json"))
    given |= {"service": {"type": "NodePort"}, "replicaCount": 1, "autoscaling": {"enabled": False}}
    given |= {"createServersNamespace": False, "sftpNamespace": ""}

    def install(values_file: Path, *more: str) -> str:
        command = ["helm", "upgrade", "--install", name, str(ROOT / "charts" / "api"), "-n", namespace]
        cluster.run(*command, "--values", "-", "--values", str(values_file), *more, stdin=json.dumps(given))
        return name

    # The local cluster has no other image.
    games_ = given["serverValues"]["games"]
    games_["teeworlds-ctf"] = {"image": games_["teeworlds"]["image"]}
    yield install
    cluster.run("helm", "uninstall", name, "-n", namespace, "--ignore-not-found")


def test_an_operators_game_needs_nothing_but_the_charts_values(
    cluster: Cluster, another_api: Callable[..., str], tmp_path: Path, new_server: Callable[[], int]
) -> None:
    """With docs/games.md the game is in the catalogue, a server of it answers, and a mistake in it is named.

    While the mistake is there, the earlier replica keeps serving.
    """
    system = ["kubectl", "-n", "gameserver-system"]
    file, written = tmp_path / "my-games.yaml", _written_in_the_docs()
    file.write_text(written)
    release = another_api(file, "--wait", "--timeout=90s")
    port = cluster.run(*system, "get", "service", release, "-o", "jsonpath={.spec.ports[0].nodePort}")
    theirs = replace(cluster, api_url=f"http://{cluster.node_ip}:{port}")
    _until_it_answers(theirs, 30, "the node port leads nowhere")
    catalogue = {game["name"] for game in theirs.done("GET", "/api/v1/game/")["games"]}
    assert catalogue == {"minecraft", "luanti", "teeworlds", "teeworlds-ctf"}

    server = new_server()
    theirs.create(server, game="teeworlds-ctf", options={"name": "Flags"})
    theirs.until_state(server, "running")
    address = theirs.done("PATCH", f"/api/v1/server/{server}/port/primary")
    info = udp_ping.teeworlds(address["host"], address["port"])
    assert (info.name, info.map, info.game_type) == ("Flags", "ctf2", "CTF")

    # A mistake in the API's values and the way back, then two mistakes in the game.
    with pytest.raises(AssertionError, match=r"not ready|deadline exceeded|timed out"):
        another_api(file, "--wait", "--timeout=5s", "--set", "serverValues.all.ramGB=4")
    values = "/etc/gameserver-api/config/server-values.yaml"
    # After the lines of the local cluster's own `cpu.request`.
    _says(cluster, release, f"{values}:4: all.ramGB is unknown; did you mean `ramGb`?")
    for command in COMMANDS:
        if command.endswith(("rollback api", "rollout restart deployment api")):
            cluster.run(*command.removesuffix("api").split(), release)
    cluster.run(*system, "rollout", "status", f"deployment/{release}", "--timeout=60s")
    template = yaml.safe_load(written)["games"]["teeworlds-ctf"]["values"].splitlines()
    for right, wrong, complaint in (
        ("options.name |", "options.nam |", ""),
        ("command: [", "comand: [", "probe.comand is unknown; did you mean `command`?"),
    ):
        line = next(number for number, text in enumerate(template, 1) if right in text)
        file.write_text(written.replace(right, wrong))
        another_api(file)
        _says(cluster, release, f"teeworlds-ctf.values.yaml.j2:{line}: {complaint}")
    _until_it_answers(theirs, 10, "nobody answers any more")
    assert {game["name"] for game in theirs.done("GET", "/api/v1/game/")["games"]} == catalogue


def _says(cluster: Cluster, release: str, complaint: str) -> None:
    """The commands of docs/operations.md show a replica that does not start, and one log line that says why."""
    pods, logs = block("docs/operations.md", "kubectl -n gameserver-system get pods").strip().splitlines()
    of = "app.kubernetes.io/instance="
    messages: list[str] = []

    def logged() -> bool:
        command = logs.replace(f"{of}api ", f"{of}{release} ")
        printed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False).stdout
        messages[:] = [json.loads(line)["message"] for line in printed.splitlines() if complaint in line]
        return bool(messages)

    until(logged, 60, lambda: f"no {complaint!r}")
    assert messages[0].startswith("cannot start: ")
    assert "\n" not in messages[0]
    # The earlier replica runs, and the new one keeps restarting.
    command = pods.replace(f"{of}api", f"{of}{release}")
    running = re.findall(r"^(\S+) +1/1 +Running", cluster.run(*command.split()), re.MULTILINE)
    assert len([pod for pod in running if not pod.startswith(f"{release}-controller-")]) == 1


def _until_it_answers(api: Cluster, seconds: float, message: str) -> None:
    """Wait until the nodes know the API's Service."""
    until(lambda: api.call("GET", "/healthcheck").ok, seconds, message, not_yet=(requests.ConnectionError,))


def _written_in_the_docs() -> str:
    """The values file of docs/games.md."""
    return block("docs/games.md", "# my-games.yaml")
