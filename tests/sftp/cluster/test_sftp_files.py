"""Customers reach their files through any node, with OpenSSH's sftp and with asyncssh."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sftp_cluster import PASSWORD, SERVERS, Server, eventually, get

pytestmark = pytest.mark.cluster


def test_each_nodes_address_leads_to_the_disk(alice: Server, bob: Server) -> None:
    """Whichever node is asked, the server's own files answer, by the host key that is published."""
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
    for server in (alice, bob):
        found = get("endpointslice", f"{server.user}-sftp", "-n", SERVERS)
        assert [endpoint["nodeName"] for endpoint in found["endpoints"]] == [server.node]
        assert found["ports"] == [{"name": "sftp", "port": 2022, "protocol": "TCP"}]


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_openssh_uploads_lists_renames_resumes_and_deletes(alice: Server, tmp_path: Path, running: bool) -> None:
    if not running:
        alice.stop()
    try:
        (tmp_path / "whole").write_bytes(bytes(range(256)) * 4096)
        (tmp_path / "part").write_bytes((bytes(range(256)) * 4096)[:300_000])
        said = alice.openssh(
            f"put {tmp_path}/whole world.dat",
            f"put {tmp_path}/part resumed.dat",
            f"reput {tmp_path}/whole resumed.dat",
            "mkdir plugins",
            "rename world.dat plugins/world.dat",
            "chmod 640 plugins/world.dat",
            "ls -ln plugins",
            f"get plugins/world.dat {tmp_path}/back",
            f"get resumed.dat {tmp_path}/resumed",
            "rm plugins/world.dat",
            "rm resumed.dat",
            "rmdir plugins",
        )
        assert (tmp_path / "back").read_bytes() == (tmp_path / "whole").read_bytes()
        assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()
        line = next(line for line in said.splitlines() if line.startswith("-rw-r-----"))
        assert line.split()[2:4] == ["1000", "1000"]
    finally:
        if not running:
            alice.start()


def test_the_game_can_change_what_was_uploaded(alice: Server, tmp_path: Path) -> None:
    (tmp_path / "server.properties").write_text("motd=hello\n")
    alice.openssh(f"put {tmp_path}/server.properties uploaded.txt")
    assert alice.game("stat -c %u:%g uploaded.txt; echo more >> uploaded.txt; cat uploaded.txt") == (
        "1000:1000\nmotd=hello\nmore\n"
    )


def test_a_password_logs_in_as_well(alice: Server) -> None:
    async def names() -> list[str]:
        async with (
            alice.connect(client_keys=None, password=PASSWORD) as connection,
            connection.start_sftp_client() as sftp,
        ):
            return [str(name) for name in await sftp.listdir("/")]

    assert {"files", "dev"} == set(asyncio.run(names())) - {".", ".."}


def test_the_port_follows_a_disk_to_another_node(alice: Server, nodes: list[dict[str, str]], tmp_path: Path) -> None:
    """An operator moves a server: its claim is bound to another volume, on another node. The port stays."""
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
        assert alice.port == port
