"""A disk of the disk driver ends where its size ends, over SFTP too; and the agent tells how full it is.

Two servers have their disks in the same node's pool: what happens to one of them must not touch the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.cluster.commands import on_node
from tests.cluster.conftest import Cluster
from tests.cluster.files.servers import SERVERS, Server, eventually, get, kubectl, reachable

CLASS = "gameserver-disks"
FILLED, NEIGHBOUR, API = 9_100_020, 9_100_021, 9_100_022
MIB = 1 << 20


@pytest.fixture(scope="module")
def pair(nodes: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two running and reachable servers with disks of 1 GiB in the first node's pool."""
    folder = tmp_path_factory.mktemp("keys")
    addresses = tuple(node["address"] for node in nodes)
    created = tuple(
        Server.with_new_key(number, nodes[0]["name"], folder, addresses, storage_class=CLASS)
        for number in (FILLED, NEIGHBOUR)
    )
    with reachable(*created):
        yield created[0], created[1]


@pytest.fixture
def filled(pair: tuple[Server, Server]) -> Iterator[Server]:
    """The server whose disk the tests fill. It is emptied afterwards."""
    yield pair[0]
    pair[0].game("find . -mindepth 1 -delete")


@pytest.fixture
def neighbour(pair: tuple[Server, Server]) -> Server:
    """The other server of the pool."""
    return pair[1]


def available(server: Server) -> int:
    """How many bytes the game may still write."""
    return int(server.game("df -B1 --output=avail . | tail -n 1"))


def use(server: Server) -> dict[str, Any]:
    """What the agent of its node tells about the server's disk; empty if nothing."""
    record = get("configmap", f"disk-usage-{server.node}", "-n", SERVERS)["data"]["disks.json"]
    told: dict[str, Any] = json.loads(record)["disks"].get(server.volume, {})
    return told


def game_container(server: Server) -> tuple[str, int]:
    """The uid of the game's pod, and how often its container was restarted."""
    pod = get("pod", f"{server.user}-0", "-n", SERVERS)
    return pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]


def leave(server: Server, room: int) -> None:
    """Fill the disk from the game until about `room` bytes are left. Nothing is written, so it takes no time."""
    server.game(f"fallocate -l {available(server) - room} ballast")


def fill(server: Server) -> None:
    """Fill the disk from the game, to the last byte."""
    leave(server, 4 * MIB)
    server.game("cat /dev/zero > rest 2>&1 || true")


def test_a_disk_filled_to_the_last_byte_keeps_what_was_saved(filled: Server, neighbour: Server, tmp_path: Path) -> None:
    """The upload fails as on any full disk. What was saved before is whole, and deleting a file makes room."""
    saved = os.urandom(5 * MIB)
    (tmp_path / "saved").write_bytes(saved)
    (tmp_path / "large").write_bytes(os.urandom(60 * MIB))
    (tmp_path / "small").write_bytes(b"small")
    filled.openssh(f"put {tmp_path}/saved saved")
    leave(filled, 30 * MIB)

    output = filled.openssh(f"put {tmp_path}/large large", check=False)
    assert "Failure" in output
    assert available(filled) < MIB
    # What fitted is there, as on any full disk.
    assert 25 * MIB < int(filled.game("stat -c %s large")) < 60 * MIB

    filled.openssh(f"get saved {tmp_path}/back")
    assert (tmp_path / "back").read_bytes() == saved
    assert filled.game("sha256sum saved").split()[0] == hashlib.sha256(saved).hexdigest()

    filled.openssh("rm large", f"put {tmp_path}/small small")
    assert filled.game("cat small") == "small"
    neighbour.game("echo plays on > note")


def test_a_neighbour_of_a_full_disk_notices_nothing(filled: Server, neighbour: Server, tmp_path: Path) -> None:
    """Its session, which was open before, and its game go on; and no container of either is restarted."""
    (tmp_path / "large").write_bytes(os.urandom(60 * MIB))
    before = [game_container(server) for server in (filled, neighbour)]

    async def meanwhile() -> bytes:
        async with neighbour.connect() as connection, connection.start_sftp_client() as sftp:
            async with sftp.open("/files/before", "wb") as file:
                await file.write(b"x" * MIB)
            await asyncio.to_thread(leave, filled, 30 * MIB)
            output = await asyncio.to_thread(filled.openssh, f"put {tmp_path}/large large", check=False)
            assert "Failure" in output
            async with sftp.open("/files/while", "wb") as file:
                await file.write(b"y" * MIB)
            async with sftp.open("/files/before", "rb") as file:
                content: Any = await file.read()
                return bytes(content)

    assert asyncio.run(meanwhile()) == b"x" * MIB
    assert neighbour.game("head -c 1 while; rm before while; echo again > note; cat note") == "yagain\n"
    assert [game_container(server) for server in (filled, neighbour)] == before


def test_a_session_cannot_pass_the_limit_by_other_ways(filled: Server) -> None:
    """A sparse file takes no room, however large it says it is, and nothing can be written into it on a full disk."""
    before = available(filled)

    async def try_all() -> list[str]:
        failed = []
        async with filled.connect() as connection, connection.start_sftp_client() as sftp:
            async with sftp.open("/files/sparse", "wb") as file:
                await file.truncate(100 << 30)
            assert available(filled) > before - MIB
            fill(filled)
            for name, mode in (("sparse", "r+b"), ("new", "wb"), ("appended", "ab")):
                try:
                    async with sftp.open(f"/files/{name}", mode) as file:
                        if mode == "r+b":
                            await file.seek(50 << 30)
                        for _ in range(8):
                            await file.write(os.urandom(MIB))
                except asyncssh.SFTPError:
                    failed.append(name)
            await sftp.remove("/files/sparse")
        return failed

    assert asyncio.run(try_all()) == ["sparse", "new", "appended"]


def test_the_agent_tells_how_full_a_disk_is(filled: Server, tmp_path: Path) -> None:
    """For a running and a stopped server, within 30 s; and when it is full, and when it is not any more."""
    filled.game("rm -rf ./*")
    # XFS frees the blocks of deleted files in the background.
    eventually(lambda: 0 < use(filled).get("used", 0) < 200_000_000, 60, "the disk is told, with room in it")
    empty = use(filled)
    assert 0.8 * (1 << 30) < empty["size"] <= 1 << 30
    filled.game("fallocate -l 300M ballast")
    eventually(lambda: use(filled)["used"] >= empty["used"] + 300_000_000, 30, "300 MB more are told")
    filled.stop()
    try:
        (tmp_path / "large").write_bytes(bytes(200 * MIB))
        filled.openssh(f"put {tmp_path}/large large")
        eventually(lambda: use(filled)["used"] >= empty["used"] + 500_000_000, 30, "an upload is told")
    finally:
        filled.start()
    filled.game("rm ballast")
    fill(filled)
    eventually(lambda: use(filled)["full"], 30, "a full disk is told")
    filled.game("rm ballast rest large")
    eventually(lambda: not use(filled)["full"], 30, "room is told")


# Names that a program without care takes for something else.
NAMES = [b"-rf", b" ", b"new\nline", b"\xff\xfe", b"*", b"$(reboot)", b"...", b"x" * 255, "ö".encode(), b"\x1b[2J"]
LINKS = {b"root": b"/", b"up": b"../../../../..", b"itself": b"itself", b"pool": b"/var/lib/gameserver-disks"}
LEVELS = 180


async def _plant(server: Server) -> None:
    """A tree that is deeper than any path may be long, with odd names and with links that lead out."""
    async with server.connect() as connection, connection.start_sftp_client() as sftp:
        for name, target in LINKS.items():
            await sftp.symlink(target, b"/files/" + name)
        for name in NAMES:
            async with sftp.open(b"/files/" + name, "wb") as file:
                await file.write(b"odd")
        for top in ("a", "b", "c"):
            await sftp.makedirs(f"/files/{top}" + "/deep-dir" * LEVELS)
        inside = "/files/a" + "/deep-dir" * LEVELS
        await sftp.rename("/files/b", f"{inside}/b")
        await sftp.rename("/files/c", f"{inside}/b" + "/deep-dir" * LEVELS + "/c")
        await sftp.symlink("/", f"{inside}/root")


def test_a_hostile_tree_is_told_and_erased_whole_and_nothing_else_is(pair: tuple[Server, Server]) -> None:
    """Nobody walks through it: not for the usage, and not for the erase. An open session does not hold it."""
    server, neighbour = pair
    neighbour.game("echo theirs > note")
    asyncio.run(_plant(server))
    names = asyncio.run(_names(server))
    assert set(NAMES) | LINKS.keys() <= names
    eventually(lambda: use(server).get("used", 0) > 0, 30, "the usage is told")

    folder, volume = server.folder, server.volume
    devices = f"losetup --list --noheadings --output BACK-FILE | grep -F {volume} || true"
    assert volume in on_node(server.node, devices)
    try:
        with server.openssh_session() as session:
            server.stop()
            kubectl("delete", "-n", SERVERS, f"pvc/{server.user}", "--wait")
            eventually(lambda: _ended_after_a_command(session), 30, "the session has ended")
            assert session.returncode != 0
        eventually(lambda: on_node(server.node, devices) == "", 30, "the loop device is free")
        left = f"ls -d {folder} /var/lib/gameserver-disks/*/{volume} 2>/dev/null || true"
        eventually(lambda: on_node(server.node, left) == "", 30, "nothing is left of the disk")
        assert on_node(server.node, "ls -d /etc /var/lib/kubelet").split() == ["/etc", "/var/lib/kubelet"]
        assert neighbour.game("cat note") == "theirs\n"
        assert neighbour.reachable()
    finally:
        server.create()
        eventually(server.reachable, 20, "the server has access again")


def _ended_after_a_command(session: subprocess.Popen[bytes]) -> bool:
    """OpenSSH's sftp notices the end of its connection only when it is asked for something after it."""
    assert session.stdin
    with contextlib.suppress(BrokenPipeError):
        # Without the buffer, which would want to be written when the session is closed.
        os.write(session.stdin.fileno(), b"ls\n")
    return session.poll() is not None


async def _names(server: Server) -> set[bytes]:
    async with server.connect() as connection, connection.start_sftp_client() as sftp:
        return {bytes(name) for name in await sftp.listdir(b"/files")}


def test_the_api_shows_the_use_of_a_disk_within_half_a_minute(shared_cluster: Cluster) -> None:
    """`disk.used_gb` of a server; null, and `enforced` false, where the default storage has no limit."""
    path = f"/api/v1/server/{API}"

    def disk() -> dict[str, Any]:
        told: dict[str, Any] = shared_cluster.settled("GET", f"{path}/").json()["disk"]
        return told

    body = {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1}
    assert shared_cluster.settled("POST", f"{path}/", body, seconds=180).status_code == 201
    try:
        eventually(lambda: shared_cluster.status(API)["state"] == "running", 120, "the game runs")
        eventually(lambda: disk()["enforced"] is not None, 30, "the disk is told")
        claim = get("pvc", f"server-{API}", "-n", SERVERS)
        if claim["spec"]["storageClassName"] != CLASS:
            assert (disk()["enforced"], disk()["used_gb"]) == (False, None)
            return
        before = disk()
        assert (before["enforced"], before["size_gb"]) == (True, 1)
        write = "head -c 300000000 /dev/zero > /data/ballast"
        kubectl("exec", "-n", SERVERS, f"server-{API}-0", "--", "sh", "-c", write)
        eventually(lambda: 0.2 < (disk()["used_gb"] or 0) - before["used_gb"] < 0.4, 30, "300 MB more are shown")
        as_of = datetime.fromisoformat(disk()["as_of"])
        assert datetime.now(UTC) - timedelta(seconds=90) < as_of <= datetime.now(UTC)
    finally:
        shared_cluster.settled("DELETE", f"{path}/?disk=erase", seconds=180)
