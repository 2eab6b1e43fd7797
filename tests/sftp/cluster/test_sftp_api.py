"""The whole way: a server made through the API, its account set through the API, and a customer at its files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import asyncssh
import pytest
from sftp_cluster import SFTP, eventually, kubectl, published_host_key

pytestmark = pytest.mark.cluster

ID = 9_100_010


def call(method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    """One call of the API; gives status and answer. Tries again where the answer says when."""
    while True:
        request = urllib.request.Request(
            f"{os.environ['API_URL']}/api/v1/server/{ID}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {os.environ['API_TOKEN']}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            if "Retry-After" not in error.headers:
                return error.code, json.load(error)
            time.sleep(int(error.headers["Retry-After"]))


def connect(port: dict[str, Any], **credentials: Any) -> Any:
    options = {"username": f"server-{ID}", "known_hosts": published_host_key(), "config": None, "agent_path": None}
    return asyncssh.connect(port["host"], port["port"], **{"client_keys": None, **options, **credentials})


@pytest.fixture(scope="module")
def port() -> Iterator[dict[str, Any]]:
    """A server, and where its files are reached."""
    status, _ = call("POST", "", {"ram_gb": 1, "disk_gb": 1, "disk": "reuse"})
    assert status in (200, 201)
    try:
        status, found = call("PATCH", "port/sftp")
        assert status == 200
        eventually(lambda: call("GET", "")[1]["state"] == "running", 120, "the game runs")
        yield found
    finally:
        call("DELETE", "?disk=erase")


def test_a_password_works_within_five_seconds_and_is_shown_once(port: dict[str, Any]) -> None:
    status, answer = call("PUT", "sftp", {"password": True})
    assert (status, answer["user"]) == (200, f"server-{ID}")
    password = answer["password"]

    async def world() -> list[str]:
        async with connect(port, password=password) as connection, connection.start_sftp_client() as sftp:
            return [str(name) for name in await sftp.listdir("/files")]

    deadline = time.monotonic() + 5
    while True:
        with contextlib.suppress(asyncssh.PermissionDenied):
            assert "world" in asyncio.run(world())
            break
        assert time.monotonic() < deadline
    assert call("GET", "sftp")[1]["password"] is None
    logs = kubectl("logs", "-n", SFTP, "daemonset/sftp", "--all-pods", "--tail=-1")
    assert password not in logs
    assert password not in kubectl("get", "secret", f"server-{ID}", "-n", SFTP, "-o", "yaml")


def test_the_fingerprint_is_that_of_the_host(port: dict[str, Any]) -> None:
    async def seen() -> str:
        key = await asyncssh.get_server_host_key(port["host"], port["port"], config=None)
        assert key is not None
        return key.get_fingerprint()

    assert call("GET", "sftp")[1]["host_keys"] == [asyncio.run(seen())]


def test_the_port_stays_over_stop_and_start(port: dict[str, Any]) -> None:
    for verb in ("stop", "start"):
        call("PATCH", verb)
        assert call("PATCH", "port/sftp")[1] == port


def test_deleting_the_server_ends_its_sessions_and_its_access(port: dict[str, Any]) -> None:
    """The disk is kept, the way to it is not; made again, the server begins without an account."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    assert call("PUT", "sftp", {"public_keys": [key.export_public_key().decode()]})[0] == 200

    async def run() -> None:
        deadline = time.monotonic() + 5
        while True:
            try:
                connection = await connect(port, client_keys=[key])
                break
            except asyncssh.PermissionDenied:
                assert time.monotonic() < deadline
        async with connection:
            status, _ = await asyncio.to_thread(call, "DELETE", "")
            assert status == 200
            await asyncio.wait_for(connection.wait_closed(), 10)

    asyncio.run(run())
    assert call("POST", "", {"ram_gb": 1, "disk_gb": 1, "disk": "reuse"})[0] == 201
    status, answer = call("GET", "sftp")
    assert (status, answer["password_set"], answer["public_keys"]) == (200, False, [])
