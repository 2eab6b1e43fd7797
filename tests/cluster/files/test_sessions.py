"""A change of credentials ends the sessions that used them and no others, and crashed processes come back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncssh
import pytest

from tests.cluster.files.servers import (
    OTHER_HASH,
    OTHER_PASSWORD,
    PASSWORD,
    PASSWORD_HASH,
    SERVERS,
    SFTP,
    Server,
    agent,
    eventually,
    in_sftp_pod,
    kubectl,
)


@contextlib.asynccontextmanager
async def session(server: Server, **options: Any) -> AsyncIterator[asyncssh.SFTPClient]:
    """An SFTP session with asyncssh."""
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(server.connect(**options))
        yield await stack.enter_async_context(connection.start_sftp_client())


async def alive(sftp: asyncssh.SFTPClient) -> bool:
    """Whether a session answers within 2 seconds."""
    try:
        await asyncio.wait_for(sftp.stat("/files"), 2)
    except (asyncssh.Error, OSError):
        return False
    return True


def session_processes(server: Server) -> int:
    """How many sessions of the server sshd has a process for."""
    script = f"cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c '^sshd: {server.user}@internal-sftp' || true"
    return int(in_sftp_pod(server.node, script))


async def hoard(connection: Any, path: str) -> None:
    """Ask for the file again and again in a session of its own, and take no answer.

    OpenSSH's sftp-server waits while it writes an answer for which its pipe has no room, so large answers alone stay
    small in memory. Small ones fill the pipe to its last page without such a wait. After that, the server can write
    nothing, and keeps what it answers to the requests that it still reads, one at a time.
    """
    requests, answers, _ = await connection.open_session(subsystem="sftp", encoding=None)

    def send(kind: int, body: bytes) -> None:
        requests.write(struct.pack(">IB", 1 + len(body), kind) + body)

    send(1, struct.pack(">I", 3))
    await answers.read(1000)
    send(3, struct.pack(">II", 1, len(path)) + path.encode() + struct.pack(">II", 1, 0))
    # After the answer's length, kind and id: the handle, with its length.
    handle = (await answers.read(1000))[9:]
    requests.channel.pause_reading()
    for number in itertools.count():
        send(5, struct.pack(">I", number) + handle + struct.pack(">QI", 0, 4000 if number < 1000 else 250_000))
        await asyncio.sleep(0.004)


async def opened(sftp: asyncssh.SFTPClient, path: str) -> None:
    """Open a file for reading."""
    await sftp.open(path, "rb")


async def ends_within(sftp: asyncssh.SFTPClient, seconds: float) -> None:
    """Check that a session ends within `seconds`."""
    deadline = time.monotonic() + seconds
    while await alive(sftp):
        assert time.monotonic() < deadline, f"the session was alive after {seconds} s"
        await asyncio.sleep(0.1)


def test_a_change_works_within_five_seconds(alice: Server) -> None:
    """A new password works within 5 seconds. The old password and the removed key do not work any more."""

    async def login(password: str) -> bool:
        try:
            async with alice.connect(client_keys=None, password=password):
                return True
        except asyncssh.PermissionDenied:
            return False

    alice.set_account(keys=[], password_hash=OTHER_HASH)
    eventually(lambda: asyncio.run(login(OTHER_PASSWORD)), 5, "the new password works")
    assert not asyncio.run(login(PASSWORD))
    assert not alice.reachable()


@pytest.mark.parametrize("what", ["the password", "the key", "the account"])
def test_taking_a_credential_away_ends_that_servers_sessions_alone(
    alice: Server, bob: Server, carol: Server, what: str
) -> None:
    """Removing a password, a key or the account ends that server's sessions within 10 seconds, and no others."""

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            hers = await stack.enter_async_context(session(alice))
            openssh = stack.enter_context(alice.openssh_session())
            others = [await stack.enter_async_context(session(server)) for server in (bob, carol)]
            if what == "the password":
                await asyncio.to_thread(alice.set_account, [alice.public_key], None)
            elif what == "the key":
                await asyncio.to_thread(alice.set_account, [], PASSWORD_HASH)
            else:
                await asyncio.to_thread(kubectl, "delete", "secret", alice.user, "-n", SFTP)
            await ends_within(hers, 10)
            # OpenSSH's sftp notices at its next command, or dies of SIGPIPE because its ssh has ended.
            openssh.communicate(b"ls\n", timeout=10)
            assert openssh.returncode in (255, -signal.SIGPIPE)
            for other in others:
                assert await alive(other)

    asyncio.run(run())


def test_adding_a_key_ends_no_session(alice: Server) -> None:
    """A new key works within 5 seconds, and the session that was open stays open."""

    async def run() -> None:
        added = asyncssh.generate_private_key("ssh-ed25519")
        async with session(alice) as sftp:
            keys = [alice.public_key, added.export_public_key().decode().strip()]
            await asyncio.to_thread(alice.set_account, keys, PASSWORD_HASH)
            deadline = time.monotonic() + 5
            while True:
                try:
                    async with session(alice, client_keys=[added]) as new:
                        assert await alive(new)
                    break
                except asyncssh.PermissionDenied:
                    assert time.monotonic() < deadline
            assert await alive(sftp)

    asyncio.run(run())


def test_a_session_that_hangs_ends_too(alice: Server) -> None:
    """Removing the credentials ends a session that hangs on a FIFO, with all of its processes."""
    alice.game("rm -f pipe; mkfifo pipe")

    def processes() -> str:
        return in_sftp_pod(
            alice.node, f"cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep '^sshd: {alice.user}' || true"
        )

    async def run() -> None:
        async with session(alice) as sftp:
            opening = asyncio.create_task(opened(sftp, "/files/pipe"))
            await asyncio.wait({opening}, timeout=1)
            assert await asyncio.to_thread(processes) != ""
            await asyncio.to_thread(alice.set_account, [], None)
            await asyncio.to_thread(eventually, lambda: processes() == "", 10, "no process of hers is left")
            with contextlib.suppress(asyncssh.Error, asyncio.CancelledError):
                opening.cancel()
                await opening

    asyncio.run(run())
    alice.game("rm pipe")


def test_a_removed_server_leaves_no_mount_and_no_user(alice: Server, carol: Server) -> None:
    """Without its Service a server has no mount, user or keys, as is the case for a kept disk."""
    kubectl("delete", "service", f"{carol.user}-sftp", "-n", SERVERS)

    def gone() -> bool:
        script = "cat /proc/self/mountinfo /var/lib/extrausers/passwd; ls /srv/sftp /run/sftp/keys /run/sftp/applied"
        output = in_sftp_pod(carol.node, script)
        return carol.user not in output

    try:
        eventually(gone, 10, "nothing of hers is left")
        assert alice.reachable()
    finally:
        carol.expose()


def test_sessions_survive_a_crash_of_the_agent(alice: Server) -> None:
    """Sessions and logins work after a crash, and the new agent ends the sessions of a changed account."""

    async def run() -> None:
        before = agent(alice.node)
        async with session(alice) as sftp:
            await asyncio.to_thread(in_sftp_pod, alice.node, f"kill -9 {before}")
            assert await alive(sftp)
            async with session(alice) as new:
                assert await alive(new)
            await asyncio.to_thread(eventually, lambda: agent(alice.node) not in ("", before), 20, "a new agent runs")
            assert await alive(sftp)
            await asyncio.to_thread(alice.set_account, [alice.public_key], None)
            await ends_within(sftp, 10)

    asyncio.run(run())


def test_sessions_survive_a_crash_of_sshds_listener(alice: Server) -> None:
    """Sessions stay open after a crash, and logins work again."""
    kill = (
        "for process in /proc/[0-9]*; do case \"$(tr '\\0' ' ' < $process/cmdline)\" in"
        " 'sshd: /usr/sbin/sshd'*) kill -9 ${process#/proc/};; esac; done"
    )

    async def run() -> None:
        async with session(alice) as sftp:
            await asyncio.to_thread(in_sftp_pod, alice.node, kill)
            assert await alive(sftp)
            await asyncio.to_thread(eventually, alice.reachable, 20, "logins work again")
            assert await alive(sftp)

    asyncio.run(run())


def test_the_agent_is_small(alice: Server) -> None:
    """The agent's resident memory is under 100 MiB."""
    script = f"grep VmRSS /proc/{agent(alice.node)}/status"
    assert int(in_sftp_pod(alice.node, script).split()[1]) < 100 * 1024


def test_one_server_cannot_have_sessions_without_end(alice: Server) -> None:
    """With the chart's default of twenty sessions, the later ones are ended and the first ones stay open."""

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            opened = []
            for _ in range(22):
                with contextlib.suppress(asyncssh.Error, OSError):
                    opened.append(await stack.enter_async_context(session(alice)))
            await asyncio.sleep(1)
            living = [await alive(sftp) for sftp in opened]
            assert sum(living) <= 20
            assert all(living[:15])

    asyncio.run(run())


def test_sessions_through_one_connection_count_too(alice: Server) -> None:
    """A connection that does not fit with all of its sessions is ended, and an earlier or smaller one stays."""

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            living = []
            for count in (8, 8, 8, 4):
                connection = await stack.enter_async_context(alice.connect())
                opened = []
                with contextlib.suppress(asyncssh.Error, OSError):
                    for _ in range(count):
                        opened.append(await stack.enter_async_context(connection.start_sftp_client()))
                await asyncio.sleep(3)
                living.append([await alive(sftp) for sftp in opened].count(True))
            assert living == [8, 8, 0, 4]
            assert await asyncio.to_thread(session_processes, alice) == 20

    asyncio.run(run())


def test_a_session_that_hoards_memory_ends_alone(alice: Server, carol: Server) -> None:
    """It asks for more and more and takes no answers. Others of the same server and of its node stay."""
    alice.game("head -c 300000 /dev/zero > large")

    async def run() -> None:
        async with session(alice) as hers, session(carol) as other, alice.connect() as connection:
            hoarding = asyncio.create_task(hoard(connection, "/files/large"))
            await asyncio.to_thread(eventually, lambda: session_processes(alice) == 2, 20, "it has a session")
            await asyncio.to_thread(eventually, lambda: session_processes(alice) == 1, 60, "it has none")
            hoarding.cancel()
            with contextlib.suppress(asyncssh.Error, OSError, asyncio.CancelledError):
                await hoarding
            assert await alive(hers)
            assert await alive(other)

    asyncio.run(run())
    alice.game("rm large")
