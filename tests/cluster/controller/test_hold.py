"""A real game holds its world still, and is let go by whoever comes next when its controller is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from local.paths import ROOT
from service.servers.names import SAVE_OWED
from tests.cluster.conftest import Cluster
from tests.cluster.controller.place import TAKEOVER_SECONDS, Place, place_of
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

OPERATION = "op-0123456789abcdef0123456789"
#: The game writes each change within a second, unless it holds still.
SAVED_SECONDS = 2
#: How far apart regions are in which nobody was before.
FAR = 5000


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    with place_of(cluster, tmp_path, ACCEPTED_EULAS="minecraft") as place:
        yield place


def inside(place: Place, *command: str) -> str:
    """The output of a command in the game's container."""
    return place.cluster.run("kubectl", "-n", place.namespace, "exec", "server-1-0", "--", *command).strip()


def world(place: Place) -> dict[str, str]:
    """All files of the world, with their contents' hashes."""
    listed = inside(place, "sh", "-c", "find world -type f -exec sha256sum {} +").splitlines()
    return {name: hash for hash, name in (line.split(maxsplit=1) for line in listed)}


def build(place: Place, x: int, block: str) -> None:
    """Set a block near the spawn, and one far away."""
    for position in (x, FAR * x):
        assert inside(place, "rcon-cli", "setblock", str(position), "70", "0", block).startswith("Changed the block")


def owed(place: Place) -> dict[str, Any] | None:
    """What the annotation says."""
    get = ("kubectl", "-n", place.namespace, "get", "statefulset", "server-1", "-o", "json")
    annotations = json.loads(place.cluster.run(*get))["metadata"]["annotations"]
    return json.loads(annotations[SAVE_OWED]) if SAVE_OWED in annotations else None


@contextmanager
def holder(place: Place, verb: str) -> Iterator[dict[str, Any]]:
    """What a process says that holds the game still or lets it go. After that it is killed."""
    command = [*place.within, sys.executable, "-m", "tests.cluster.controller.holder", verb, "1", OPERATION]
    environment = {**place.environment, "PATH": os.environ["PATH"], "POD_NAME": "holder"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


def test_a_game_holds_still_and_goes_on_whoever_dies(place: Place) -> None:
    """While it holds still its files do not change, whatever is built; and what is built is not lost."""
    place.call("POST", "/server/1/", {"game": "minecraft", "ram_gb": 1, "disk_gb": 1})
    place.until_running(1)
    build(place, 1, "stone")
    with holder(place, "hold") as held:
        assert (held["consistency"], held["why"]) == ("game-saved", None)
        assert owed(place) is not None
        before = world(place)
        build(place, 2, "gold_block")
        time.sleep(SAVED_SECONDS)
        assert world(place) == before
    with holder(place, "release") as released:
        assert (released["consistency"], released["why"]) == ("game-saved", None)
    assert owed(place) is None
    until(lambda: world(place) != before, 10)
    print(f"the game saved in {held['took']:.2f} s and was let go in {released['took']:.2f} s")

    # Whoever holds it still is killed: nobody has let it go, until another controller leads.
    with holder(place, "hold") as held:
        assert held["consistency"] == "game-saved"
    before = world(place)
    build(place, 3, "gold_block")
    time.sleep(SAVED_SECONDS)
    assert world(place) == before
    with place.controller("one") as controller:
        until(lambda: owed(place) is None, TAKEOVER_SECONDS + 10, place.logged)
        until(lambda: world(place) != before, 10, place.logged)
        assert inside(place, "rcon-cli", "save-on") == "Saving is already turned on"
        assert f"the game was let go for the operation {OPERATION}" in place.logged()
        controller.terminate()
        controller.wait(30)
