"""Every snippet and command of the README and the handbook is run by a test; here are those that need no cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from local import __main__ as local
from local.paths import ROOT
from service.games import catalogue as games
from service.games import operator_values
from service.servers.chartvalues import ChartValues
from service.servers.spec import ServerSpec
from service.servers.values import started, values_of
from service.settings import Settings
from tests.charts.rendering import at, render
from tests.docs.snippets import BLOCKS, COMMANDS, PAGES, PICTURE, block, blocks, commands

CHART = ChartValues(Settings.chart_path)


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_run_by_a_test(page: str) -> None:
    """A new one wants a test, and its line in the table."""
    begin, known = [snippet.first for snippet in blocks(page)], [first for first, _ in BLOCKS.get(page, [])]
    assert [first for first in begin if not first.startswith(tuple(known))] == [], "which test runs these?"
    assert [first for first in known if not any(one.startswith(first) for one in begin)] == [], "where are these?"


def test_each_command_is_run_by_a_test() -> None:
    """Those in the text too, unless they are one of make's or only name a program's command."""
    used = {command for page in PAGES for command in commands(page)}
    used -= {command for command in used if "make " in command or "…" in command}
    wanted = {command for command in used if len(re.findall(r"(?<!\S)[^-]", command)) > 2}
    assert wanted == COMMANDS.keys()


def test_the_tests_that_the_table_names_are_there() -> None:
    """By file and name."""
    named = {test for table in BLOCKS.values() for _, test in table} | set(COMMANDS.values())
    for file, name in (test.split("::") for test in named - {PICTURE}):
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file} has no {name}"


def test_every_make_command_is_a_target() -> None:
    """They are what runs these tests, and `.ci/run` runs them; here only that each is there."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = {command for page in PAGES for command in commands(page) if "make " in command}
    lines = [line for page in PAGES for part in blocks(page) for line in part.text.splitlines()]
    named |= {line for line in lines if line.startswith("make ")}
    assert {"make run", "make test", "make stop"} <= named
    for command in named:
        assert command.split("make ")[1].split()[0] in targets, command


def test_make_run_says_so() -> None:
    """What it prints in the end, but for the addresses."""
    shown = {"game": "10.77.0.2:24418", "sftp_port": "26526", "sftp_host": "10.77.0.2", "url": "http://10.77.0.2:30080"}
    printed = local._NEXT.format(**shown, env="/root/gameserver-cluster/.local/env")
    assert block("README.md", "Minecraft server 1 is up").strip() in printed


def test_server_values_are_taken(tmp_path: Path) -> None:
    """Those that say where images are."""
    path = tmp_path / "server-values.yaml"
    written = yaml.safe_load(block("docs/games.md", "serverValues:"))["serverValues"]
    path.write_text(yaml.safe_dump(written))
    assert operator_values.load(path, games.load(games.BUILT_IN, chart=CHART), CHART) == written


def test_minecraft_is_held_still_as_written() -> None:
    """The block is what the built-in game has."""
    written = yaml.safe_load(block("docs/games.md", "console: {kind: rcon}"))
    metadata = yaml.safe_load((games.BUILT_IN / "minecraft" / "game.yaml").read_text())
    assert written == {key: metadata[key] for key in ("console", "save")}


@pytest.mark.tools
def test_minecraft_by_host_name(tmp_path: Path) -> None:
    """The line, in the built-in game's template: the Service takes no node port, and has the name for mc-router."""
    folder = tmp_path / "minecraft"
    shutil.copytree(games.BUILT_IN / "minecraft", folder)
    with (folder / "values.yaml.j2").open("a") as template:
        template.write("\n" + block("docs/operations.md", "service: {type: ClusterIP"))
    game = games.load(tmp_path, chart=CHART)["minecraft"]
    spec = ServerSpec("minecraft", 2, 10, {}, rcon="private")
    values = started(values_of(4711, spec, game.render(4711, spec), {}), running=True)
    service = render("gameserver", values)["Service/server-4711"]
    assert service["spec"]["type"] == "ClusterIP"
    assert service["metadata"]["annotations"] == {
        "external-dns.alpha.kubernetes.io/hostname": "4711.play.example.com",
        "mc-router.itzg.me/externalServerName": "4711.play.example.com",
    }


@pytest.mark.tools
def test_a_pool_is_made_as_written(tmp_path: Path) -> None:
    """On a loop device and with an fstab of the test's own, in a mount namespace of the test's own."""
    for name in ("device", "fstab"):
        (tmp_path / name).touch()
    script = """
        mount --bind fstab /etc/fstab
        truncate -s 1G device
        device=$(losetup --find --show device)
        trap 'umount pool; losetup --detach "$device"' EXIT
    """
    written = block("docs/operations.md", "mkfs.xfs /dev/sdb").replace("'/dev/sdb ", '"$device"\' ')
    written = written.replace("/dev/sdb", '"$device"').replace("/var/lib/gameserver-disks", str(tmp_path / "pool"))
    script += written + "findmnt --noheadings --output FSTYPE,OPTIONS --mountpoint pool; xfs_info pool"
    command = ["unshare", "--mount", "bash", "-euc", script]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "discard" in printed
    # What a pool's snapshots are made of.
    assert "reflink=1" in printed


@pytest.mark.tools
def test_the_apparmor_profile_is_one() -> None:
    """By AppArmor's own parser, where there is one; and the chart takes it by the name that it has."""
    profile = block("docs/sftp.md", "profile gameserver-sftp")
    name = re.match(r"profile (\S+) ", profile)
    assert name
    assert profile.count("{") == profile.count("}")
    if parser := shutil.which("apparmor_parser"):
        subprocess.run([parser, "--skip-kernel-load", "--skip-cache"], input=profile, text=True, check=True)
    rules = [line.strip() for line in profile.splitlines()[1:-1] if not line.strip().startswith("#")]
    assert all(rule.endswith(",") for rule in rules)
    daemon: Any = render("sftp-daemonset", {"appArmorProfile": f"Localhost/{name[1]}"})["DaemonSet/sftp"]
    containers = at(daemon, "spec.template.spec.containers")
    wanted = {"type": "Localhost", "localhostProfile": name[1]}
    assert wanted in [container["securityContext"].get("appArmorProfile") for container in containers]
