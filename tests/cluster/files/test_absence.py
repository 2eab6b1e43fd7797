"""While the API server is away, sessions and logins work. The agents retry ever less often, and catch up afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import asyncssh
import pytest

from local.nodes import Node
from tests.cluster import absence
from tests.cluster.files.servers import (
    PASSWORD,
    PASSWORD_HASH,
    SFTP,
    Server,
    eventually,
    kubectl,
    published_host_key,
    sftp_pod,
)


@contextlib.asynccontextmanager
async def session(alice: Server, bob: Server) -> AsyncIterator[asyncssh.SFTPClient]:
    """A session of Alice's that starts before the API server goes away."""
    # Read from Kubernetes before it goes away, and cached.
    assert alice.port != bob.port
    published_host_key()
    async with alice.connect() as before, before.start_sftp_client() as sftp:
        yield sftp


async def works(alice: Server, bob: Server, sftp: asyncssh.SFTPClient) -> None:
    """Check that the session works, and that new logins work on both nodes, by key and by password."""
    async with sftp.open("/files/meanwhile.txt", "w") as file:
        await file.write("written")
    for server in (alice, bob):
        for credentials in ({}, {"client_keys": None, "password": PASSWORD}):
            async with server.connect(**credentials) as new, new.start_sftp_client() as client:
                assert await client.exists("/files")
    assert await sftp.exists("/files/meanwhile.txt")


@pytest.mark.alone
def test_sessions_and_logins_work_with_a_silent_api_server(alice: Server, bob: Server) -> None:
    """Sessions and logins work while the API server is frozen, and a later change of an account takes effect."""

    async def run() -> None:
        async with session(alice, bob) as sftp:
            with absence.frozen(Node(1), "kube-apiserver"):
                await works(alice, bob, sftp)
            # The watches still work, so a change takes effect as usual.
            await asyncio.to_thread(alice.set_account, [], PASSWORD_HASH)
            await asyncio.wait_for(sftp_ends(sftp), 10)

    asyncio.run(run())


@pytest.mark.long
def test_a_missing_api_server_is_called_ever_less_often(alice: Server, bob: Server) -> None:
    """In half a minute of refused connections, each of the five watches tries only a few times."""

    async def run() -> None:
        async with session(alice, bob) as sftp:
            pod, since = await asyncio.to_thread(sftp_pod, alice.node), time.time()
            with absence.stopped(Node(1), "kube-apiserver"):
                away = time.monotonic()
                while time.monotonic() - away < 30:
                    await works(alice, bob, sftp)
                    await asyncio.sleep(1)
            await asyncio.to_thread(eventually, api_server_answers, 120, "the API server is back")
            tries = await asyncio.to_thread(interruptions, pod, int(time.time() - since) + 1)
            print(f"{tries} tries of five watches in {time.time() - since:.0f} s")
            # The pauses are at least 0.25, 0.5, 1, 2, 4, 8, 15, 15 … seconds.
            assert 5 <= tries <= 5 * (7 + (time.time() - since) / 15)
            await works(alice, bob, sftp)
            # The agent catches up: a change takes effect within the longest pause.
            await asyncio.to_thread(alice.set_account, [], PASSWORD_HASH)
            await asyncio.wait_for(sftp_ends(sftp), 45)

    asyncio.run(run())


async def sftp_ends(sftp: asyncssh.SFTPClient) -> None:
    """Wait until the session has ended."""
    with contextlib.suppress(asyncssh.Error, OSError):
        while True:
            await sftp.stat("/files")
            await asyncio.sleep(0.1)


def api_server_answers() -> bool:
    """Whether the API server is ready."""
    try:
        return kubectl("get", "--raw", "/readyz") == "ok"
    except AssertionError:
        return False


def interruptions(pod: str, seconds: int) -> int:
    """How often a pod's watches have failed in the last `seconds` seconds."""
    return kubectl("logs", "-n", SFTP, pod, f"--since={seconds}s").count('"watch interrupted"')
