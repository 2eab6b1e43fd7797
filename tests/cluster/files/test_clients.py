"""What real clients do: offer an agent's keys, know one type of host key, use odd names, connect many at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import asyncssh
import pytest

from tests.cluster.files.servers import (
    OTHER_HASH,
    PASSWORD,
    SFTP,
    Server,
    eventually,
    get,
    in_sftp_pod,
    kubectl,
    sftp_pod,
)

LIMIT = 20
TYPES = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512"]


def logged(server: Server, since: str = "60s") -> list[dict[str, Any]]:
    """The log lines about the server in its node's SFTP pod."""
    text = kubectl("logs", "-n", SFTP, sftp_pod(server.node), f"--since={since}")
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("server") == server.number]


def eventually_logged(server: Server, *entries: dict[str, Any]) -> None:
    """Wait until the log has a line with the fields of each entry."""

    def all_logged() -> bool:
        lines = logged(server)
        return all(any(entry.items() <= line.items() for line in lines) for entry in entries)

    eventually(all_logged, 10, f"all of {entries}")


def foreign_keys(count: int) -> list[asyncssh.SSHKey]:
    """Keys that no account has."""
    return [asyncssh.generate_private_key("ssh-ed25519") for _ in range(count)]


def test_a_client_that_offers_its_agents_keys_first_gets_in_by_its_password(alice: Server) -> None:
    """Twenty wrong keys before the password are accepted. Sixty are refused, and the log names the user."""

    async def run() -> None:
        async with alice.connect(client_keys=foreign_keys(20), password=PASSWORD):
            pass
        with pytest.raises((asyncssh.Error, OSError)):
            async with alice.connect(client_keys=foreign_keys(60)):
                pass

    asyncio.run(run())
    eventually_logged(alice, {"event": "login refused", "reason": "too many tries", "user": alice.user})


def test_a_connection_is_good_for_four_passwords(carol: Server) -> None:
    """A connection ends after four wrong passwords, and the log says so."""

    class Guessing(asyncssh.SSHClient):
        attempts = 0

        async def password_auth_requested(self) -> str | None:
            # As a quick person does. The agent acts on sshd's log, so a client may be a guess or two ahead of it.
            await asyncio.sleep(1)
            self.attempts += 1
            return f"wrong {self.attempts}" if self.attempts < 30 else None

    async def run() -> None:
        with pytest.raises((asyncssh.Error, OSError)):
            async with carol.connect(client_keys=None, client_factory=Guessing):
                pass

    asyncio.run(run())
    eventually_logged(carol, {"event": "login refused", "reason": "too many wrong passwords"})
    (session,) = {line["session"] for line in logged(carol) if line.get("reason") == "too many wrong passwords"}
    wrong = [line for line in logged(carol) if line.get("session") == session and "reason" not in line]
    assert 4 <= len([line for line in wrong if line.get("method") == "password"]) <= 6


@pytest.mark.parametrize("kind", TYPES)
def test_a_client_that_knows_one_type_of_host_key_connects(alice: Server, kind: str) -> None:
    """A client that accepts only one type of host key can connect, for each type."""

    async def run() -> None:
        async with alice.connect(server_host_key_algs=[kind]):
            pass

    asyncio.run(run())


NAMES = ["wörld", "a\nb", 'q"uote', "back\\slash", "漢字 \U0001f3ae", "x" * 255]


def test_each_operation_is_found_by_its_server_and_its_name(alice: Server) -> None:
    """The log has each operation with the server and the file's name, also for odd names and broken transfers.

    A name that OpenSSH cuts is marked with `cut`.
    """
    umlauts = "ü" * 127

    async def run() -> None:
        async with alice.connect() as connection, connection.start_sftp_client() as sftp:
            for name in [*NAMES, umlauts]:
                async with sftp.open(f"/files/{name}", "wb") as file:
                    await file.write(b"five\n")
            await sftp.rename("/files/wörld", "/files/wörld 2")
            for name in [*NAMES[1:], umlauts, "wörld 2"]:
                await sftp.remove(f"/files/{name}")
            broken = await sftp.open("/files/brökén", "wb")
            await broken.write(b"half")
            connection.abort()

    asyncio.run(run())
    alice.game("rm brökén")
    eventually_logged(
        alice,
        *({"event": "file", "operation": "close", "path": f"/files/{name}", "bytes_written": 5} for name in NAMES),
        {"operation": "rename", "path": "/files/wörld", "new_path": "/files/wörld 2"},
        {"operation": "close", "path": "/files/brökén", "bytes_written": 4, "broken_off": True},
        {"operation": "remove", "path": "/files/" + "ü" * 60, "cut": True},
    )
    text = kubectl("logs", "-n", SFTP, sftp_pod(alice.node), "--since=60s")
    assert "wörld" in text
    assert all(line.isprintable() for line in text.split("\n"))


async def _session(server: Server) -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
    connection = await server.connect()
    return connection, await connection.start_sftp_client()


async def _alive(sftp: asyncssh.SFTPClient) -> bool:
    try:
        await asyncio.wait_for(sftp.stat("/files"), 5)
    except (asyncssh.Error, OSError, TimeoutError):
        return False
    return True


def _processes(server: Server) -> int:
    script = f"cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c '^sshd: {server.user}' || true"
    return int(in_sftp_pod(server.node, script))


def test_many_logins_at_once_never_leave_more_sessions_than_allowed(alice: Server) -> None:
    """At most LIMIT sessions survive, ended sessions leave no process, and a new password ends all of them."""

    async def run() -> None:
        connections: list[asyncssh.SSHClientConnection] = []
        living: list[asyncssh.SFTPClient] = []
        try:
            for _ in range(3):
                results = await asyncio.gather(*(_session(alice) for _ in range(25)), return_exceptions=True)
                sessions = [result for result in results if not isinstance(result, BaseException)]
                connections += [connection for connection, _ in sessions]
                await asyncio.sleep(1)
                living = [sftp for sftp in [*living, *(sftp for _, sftp in sessions)] if await _alive(sftp)]
                assert 1 <= len(living) <= LIMIT
            # A session has three processes: a monitor, the connection and its files.
            assert await asyncio.to_thread(_processes, alice) <= 3 * LIMIT
            await asyncio.to_thread(alice.set_account, [alice.public_key], OTHER_HASH)
            await asyncio.to_thread(eventually, lambda: _processes(alice) == 0, 10, "no process of hers is left")
        finally:
            for connection in connections:
                connection.abort()

    asyncio.run(run())


@contextlib.contextmanager
def strangers(address: str, port: int, count: int) -> Iterator[None]:
    """`count` connections that send nothing after the greeting."""
    with contextlib.ExitStack() as open_:
        for _ in range(count):
            with contextlib.suppress(OSError):
                stranger = open_.enter_context(socket.create_connection((address, port), timeout=10))
                stranger.sendall(b"SSH-2.0-idle\r\n")
        yield


def test_a_crowd_of_strangers_keeps_no_customer_out(alice: Server, carol: Server) -> None:
    """With more strangers than sshd has places, each customer logs in at the first try.

    The strangers come through another server's port of the same node. A customer who was typing a password can go on.
    """

    async def run() -> None:
        typed = asyncio.Event()

        class Typing(asyncssh.SSHClient):
            async def password_auth_requested(self) -> str:
                await typed.wait()
                return PASSWORD

        typing = asyncio.create_task(
            _login(alice, client_keys=None, password=None, client_factory=Typing, login_timeout=100)
        )
        await asyncio.sleep(1)
        with await asyncio.to_thread(_entered, strangers(carol.addresses[0], carol.port, 450)):
            for _ in range(5):
                await _login(alice, login_timeout=100)
            typed.set()
            await typing

    asyncio.run(run())


def _entered(manager: contextlib.AbstractContextManager[None]) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    stack.enter_context(manager)
    return stack


async def _login(server: Server, **options: Any) -> None:
    async with server.connect(**options) as connection, connection.start_sftp_client() as sftp:
        await sftp.stat("/files")


@pytest.mark.long
def test_there_are_two_minutes_to_log_in(alice: Server) -> None:
    """A login may take 100 seconds. After two minutes the connection ends, and the log says so."""

    async def patient() -> None:
        class Slow(asyncssh.SSHClient):
            async def password_auth_requested(self) -> str:
                await asyncio.sleep(100)
                return PASSWORD

        await _login(alice, client_keys=None, password=None, client_factory=Slow, login_timeout=180)

    asyncio.run(patient())

    class Asleep(asyncssh.SSHClient):
        async def password_auth_requested(self) -> str:
            await asyncio.sleep(180)
            return PASSWORD

    async def asleep() -> None:
        await _login(alice, client_keys=None, password=None, client_factory=Asleep, login_timeout=180)

    began = time.monotonic()
    with pytest.raises((asyncssh.Error, OSError)):
        asyncio.run(asleep())
    assert 115 < time.monotonic() - began < 128
    eventually_logged(alice, {"event": "login timed out"})


@pytest.mark.long
def test_forty_thousand_uploads_leave_everybodys_logins_in_the_log(alice: Server, carol: Server) -> None:
    """The log leaves out file operations during the uploads, says how many, and keeps the logins."""
    asyncio.run(_login(carol))
    eventually_logged(carol, {"event": "login"})

    async def flood() -> None:
        async def some(first: int) -> None:
            async with alice.connect() as connection, connection.start_sftp_client() as sftp:
                for number in range(first, first + 5000):
                    async with sftp.open(f"/files/flood/{number}", "wb"):
                        pass

        await asyncio.gather(*(some(first) for first in range(0, 40_000, 5000)))

    alice.game("mkdir -p flood")
    try:
        asyncio.run(flood())
    finally:
        alice.game("rm -rf flood")
    assert any(line["event"] == "login" for line in logged(carol, "1h"))
    assert any(line["event"] == "login" for line in logged(alice, "1h"))
    eventually(
        lambda: sum(line.get("lines", 0) for line in logged(alice, "1h") if line["event"] == "lines left out") > 70_000,
        30,
        "the log says how many lines it left out",
    )
    asyncio.run(_login(alice))


def test_every_host_keys_fingerprint_is_published() -> None:
    """The ConfigMap has the fingerprint of each public host key, one of each type."""
    data = get("configmap", "sftp-host-key", "-n", SFTP)["data"]
    keys = [asyncssh.import_public_key(line) for line in data["public-keys"].splitlines()]
    assert [key.get_fingerprint() for key in keys] == data["fingerprints"].split()
    assert [key.get_algorithm() for key in keys] == ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]
