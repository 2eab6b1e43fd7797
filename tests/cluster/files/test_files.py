"""Customers reach their files through any node, with OpenSSH's sftp and with asyncssh."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.files.servers import PASSWORD, SERVERS, SFTP, Server, eventually, get, kubectl, sftp_pod


def test_each_nodes_address_leads_to_the_disk(alice: Server, bob: Server) -> None:
    """Each node's address leads to the server's own files, with the published host key."""
    for server in (alice, bob):
        server.game(f"echo {server.user} > whose.txt")

        async def whose(address: str, server: Server = server) -> str:
            async with (
                server.connect(address) as connection,
                connection.start_sftp_client() as sftp,
                sftp.open("/files/whose.txt") as file,
            ):
                return str(await file.read()).strip()

        for address in server.addresses:
            assert asyncio.run(whose(address)) == server.user


def test_the_port_leads_to_the_pod_on_the_disks_node(alice: Server, bob: Server) -> None:
    """The Service's EndpointSlice has the SFTP pod of the disk's node."""
    for server in (alice, bob):
        slices = get("endpointslice", f"{server.user}-sftp", "-n", SERVERS)
        assert [endpoint["nodeName"] for endpoint in slices["endpoints"]] == [server.node]
        assert slices["ports"] == [{"name": "sftp", "port": 2022, "protocol": "TCP"}]


WHOLE = bytes(range(256)) * 4096
PART = WHOLE[:300_000]


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_upload_list_rename_resume_download_and_delete(alice: Server, tmp_path: Path, running: bool) -> None:
    """All of these work with OpenSSH's sftp and asyncssh, while the game runs and while it is stopped."""
    if not running:
        alice.stop()
    try:
        _by_openssh(alice, tmp_path)
        asyncio.run(_by_asyncssh(alice, tmp_path))
    finally:
        if not running:
            alice.start()


def _by_openssh(alice: Server, tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(WHOLE)
    (tmp_path / "part").write_bytes(PART)
    (tmp_path / "half").write_bytes(PART)
    output = alice.openssh(
        f"put {tmp_path}/whole world.dat",
        f"put {tmp_path}/part resumed.dat",
        f"reput {tmp_path}/whole resumed.dat",
        "mkdir plugins",
        "rename world.dat plugins/world.dat",
        "chmod 640 plugins/world.dat",
        "ls -ln plugins",
        f"get plugins/world.dat {tmp_path}/back",
        f"get resumed.dat {tmp_path}/resumed",
        f"reget resumed.dat {tmp_path}/half",
        "rm plugins/world.dat",
        "rm resumed.dat",
        "rmdir plugins",
    )
    for name in ("back", "resumed", "half"):
        assert (tmp_path / name).read_bytes() == WHOLE
    line = next(line for line in output.splitlines() if line.startswith("-rw-r-----"))
    assert line.split()[2:4] == ["1000", "1000"]


async def _by_asyncssh(alice: Server, tmp_path: Path) -> None:
    async with alice.connect() as connection, connection.start_sftp_client() as sftp:
        await sftp.put(tmp_path / "whole", "world.dat")
        async with sftp.open("resumed.dat", "wb") as file:
            await file.write(PART)
        async with sftp.open("resumed.dat", "r+b") as file:
            await file.seek((await sftp.stat("resumed.dat")).size or 0)
            await file.write(WHOLE[len(PART) :])
        await sftp.mkdir("plugins")
        await sftp.rename("world.dat", "plugins/world.dat")
        await sftp.chmod("plugins/world.dat", 0o640)
        (uploaded,) = [entry for entry in await sftp.readdir("plugins") if entry.filename == "world.dat"]
        attributes = uploaded.attrs
        assert (attributes.uid, attributes.gid, (attributes.permissions or 0) & 0o777) == (1000, 1000, 0o640)
        await sftp.get("plugins/world.dat", tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == WHOLE
        async with sftp.open("resumed.dat", "rb") as file:
            await file.seek(len(PART))
            assert PART + bytes(await file.read()) == WHOLE
        for name in ("plugins/world.dat", "resumed.dat"):
            await sftp.remove(name)
        await sftp.rmdir("plugins")
        assert not {"plugins", "resumed.dat", "world.dat"} & {str(name) for name in await sftp.listdir(".")}


def test_the_game_can_change_what_was_uploaded(alice: Server, tmp_path: Path) -> None:
    """An uploaded file belongs to the game's user, and the game can write to it."""
    (tmp_path / "server.properties").write_text("motd=hello\n")
    alice.openssh(f"put {tmp_path}/server.properties uploaded.txt")
    assert alice.game("stat -c %u:%g uploaded.txt; echo more >> uploaded.txt; cat uploaded.txt") == (
        "1000:1000\nmotd=hello\nmore\n"
    )


def test_a_password_logs_in_as_well(alice: Server) -> None:
    """The password works with asyncssh and OpenSSH, and a wrong one does not."""

    async def names() -> list[str]:
        async with (
            alice.connect(client_keys=None, password=PASSWORD) as connection,
            connection.start_sftp_client() as sftp,
        ):
            return [str(name) for name in await sftp.listdir("/")]

    assert {"files", "dev"} == set(asyncio.run(names())) - {".", ".."}
    assert "/files" in alice.openssh("pwd", password=PASSWORD)
    assert "Permission denied" in alice.openssh("pwd", password="wrong", check=False)


def test_logins_and_file_operations_are_logged_with_server_and_path(alice: Server, tmp_path: Path) -> None:
    """The pod prints JSON lines for logins, refused logins and file operations, but never a password."""
    (tmp_path / "up").write_text("five\n")
    alice.openssh(
        f"put {tmp_path}/up logged.txt", "mkdir logged", "rmdir logged", "rename logged.txt logged", "rm logged"
    )
    alice.openssh(check=False, password="a-wrong-password")

    def lines() -> list[dict[str, Any]]:
        text = kubectl("logs", "-n", SFTP, sftp_pod(alice.node), "--since=30s")
        assert "a-wrong-password" not in text
        entries = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [line for line in entries if line.get("server") == alice.number]

    expected: list[dict[str, Any]] = [
        {"event": "login", "user": alice.user, "method": "publickey"},
        {"event": "file", "operation": "open", "path": "/files/logged.txt", "flags": "WRITE,CREATE,TRUNCATE"},
        {"event": "file", "operation": "close", "path": "/files/logged.txt", "bytes_written": 5},
        {"event": "file", "operation": "mkdir", "path": "/files/logged"},
        {"event": "file", "operation": "rmdir", "path": "/files/logged"},
        {"event": "file", "operation": "posix-rename", "path": "/files/logged.txt", "new_path": "/files/logged"},
        {"event": "file", "operation": "remove", "path": "/files/logged"},
        {"event": "login refused", "user": alice.user, "method": "password"},
    ]

    def all_logged() -> bool:
        logged = lines()
        return all(any(entry.items() <= line.items() for line in logged) for entry in expected)

    eventually(all_logged, 10, f"all of {expected} in {lines()}")
    assert all(line["client"] for line in lines() if line["event"].startswith("login"))


def test_the_port_follows_a_disk_to_another_node(alice: Server, nodes: list[dict[str, str]], tmp_path: Path) -> None:
    """When an operator moves a server's disk to another node, the port leads there and stays the same."""
    home, port = alice.node, alice.port
    away = nodes[-1]["name"]
    if home == away:
        pytest.fail("this test needs two nodes")
    for node in (away, home):
        alice.move(node)
        alice.game(f"echo on {node} > where.txt")

        def says(node: str = node) -> bool:
            alice.openssh(f"get where.txt {tmp_path}/where", check=False)
            return (tmp_path / "where").read_text() == f"on {node}\n"

        eventually(says, 10, f"the port leads to {node}")
        del alice.port
        assert alice.port == port
