"""No token, password or key is in a log, a command line, an event or helm's values.

This test runs after all others (see conftest.py), so that it searches their traces, too.
"""

import asyncio
import base64
import contextlib
import gzip
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncssh
import pytest
import requests

from local import nodes, paths
from service.console import rcon
from service.console.connection import LoginRefused
from tests.cluster import absence
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.replicas import NAMESPACE, pods
from tests.support.waiting import until

SFTP_NAMESPACE = "gameserver-sftp"


@dataclass
class Processes:
    """Command lines and environments of the nodes' processes, read again and again."""

    seen: set[bytes] = field(default_factory=set)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Read them while the `with` lasts."""
        done = threading.Event()
        thread = threading.Thread(target=self._look, args=(done,))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _look(self, done: threading.Event) -> None:
        while not done.wait(0.02):
            for number in nodes.running():
                for pid in absence.processes(nodes.Node(number)):
                    for file in ("cmdline", "environ"):
                        try:
                            self.seen.add(Path(f"/proc/{pid}/{file}").read_bytes())
                        except OSError:
                            continue


def forms(secret: str) -> set[bytes]:
    """The forms in which a secret may appear: plain, in base64, in a URL, in JSON."""
    plain = secret.encode()
    return {plain, base64.b64encode(plain), quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode()}


def leaks(places: Mapping[str, bytes], known: Mapping[str, str]) -> list[str]:
    """Which secret is in which place, by their names, so that no secret is printed."""
    return [
        f"{name} in {place}"
        for name, secret in known.items()
        for form in forms(secret)
        for place, text in places.items()
        if form in text
    ]


def logs() -> dict[str, bytes]:
    """All logs of all containers, including ended and rotated ones, and of each node's own daemons."""
    contents = {}
    for number in nodes.running():
        folder = nodes.Node(number).folder
        # Unlike Path.rglob, os.walk accepts that a pod's folder disappears meanwhile.
        walked = os.walk(folder / "var/log/pods")
        written = [Path(of_container, name) for of_container, _, names in walked for name in names if ".log" in name]
        for file in [*written, *folder.glob("*.log")]:
            try:
                data = file.read_bytes()
            except FileNotFoundError:  # Its pod has just been deleted.
                continue
            contents[str(file.relative_to(paths.NODES))] = gzip.decompress(data) if file.suffix == ".gz" else data
    return contents


def objects(cluster: Cluster) -> dict[str, bytes]:
    """The texts in the cluster that can be read without the right to read Secrets."""
    kinds = "events,configmaps,pods,statefulsets,deployments,daemonsets,services,persistentvolumeclaims,leases,nodes"
    texts = {kind: cluster.run("kubectl", "get", kind, "-A", "-o", "json").encode() for kind in kinds.split(",")}
    releases = json.loads(cluster.run("helm", "list", "-A", "-o", "json"))
    for release in releases:
        name, namespace = release["name"], release["namespace"]
        # Other tests' namespaces may disappear while this test runs.
        with contextlib.suppress(AssertionError):
            texts[f"helm values of {name}"] = cluster.run("helm", "-n", namespace, "get", "values", "-a", name).encode()
            texts[f"helm notes of {name}"] = cluster.run("helm", "-n", namespace, "get", "notes", name).encode()
    return texts


def kept_lines(cluster: Cluster) -> dict[str, bytes]:
    """The last lines that are kept of games that have ended."""
    selector = ("-l", "app.kubernetes.io/component=kept-log")
    kept = json.loads(cluster.run("kubectl", "-n", SFTP_NAMESPACE, "get", "secrets", *selector, "-o", "json"))["items"]
    return {each["metadata"]["name"]: gzip.decompress(base64.b64decode(each["data"]["log.gz"])) for each in kept}


def present_secrets(cluster: Cluster) -> dict[str, str]:
    """All secrets of the product in the cluster, by name."""
    present = {"the API's token": cluster.api_token}
    for server in cluster.get("secrets", "-l", "gameserver/id")["items"]:
        password = server.get("data", {}).get("password")
        if password:
            present[f"RCON password in {server['metadata']['name']}"] = base64.b64decode(password).decode()
    keys = json.loads(cluster.run("kubectl", "-n", SFTP_NAMESPACE, "get", "secrets", "-o", "json"))["items"]
    for secret in keys:
        if "log.gz" in (secret.get("data") or {}):
            continue  # No secret, but a place to search.
        for name, packed in (secret.get("data") or {}).items():
            text = base64.b64decode(packed).decode()
            if "PRIVATE KEY" in text:
                present[f"the host key in {secret['metadata']['name']}"] = text.splitlines()[1]
            elif name == "password-hash":
                present[f"the password's hash in {secret['metadata']['name']}"] = text
    webhooks = json.loads(cluster.run("kubectl", "-n", NAMESPACE, "get", "secret", "api-webhook-secrets", "-o", "json"))
    for uid, packed in (webhooks.get("data") or {}).items():
        for entry in json.loads(base64.b64decode(packed))["secrets"]:
            present[f"a secret of the webhook {uid}"] = entry["secret"]
    return present


def greets(host: str, port: int) -> bool:
    """Whether an SSH server answers. Raises OSError, for example while the node does not know the port yet."""
    with socket.create_connection((host, port), timeout=5) as connection:
        return connection.recv(4) == b"SSH-"


def log_in(host: str, port: int, user: str, password: str) -> bool:
    """Whether SFTP opens with that password."""

    async def try_it() -> bool:
        try:
            async with (
                asyncssh.connect(
                    host, port, username=user, password=password, known_hosts=None, client_keys=None, config=None
                ) as connection,
                connection.start_sftp_client() as client,
            ):
                await client.listdir(".")
            return True
        except asyncssh.PermissionDenied:
            return False

    return asyncio.run(try_it())


def sent(url: str, request: bytes) -> bytes:
    """The answer to raw bytes that are no valid request."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def use_everything(cluster: Cluster, server: int, marker: str) -> tuple[dict[str, str], dict[str, bytes]]:
    """Use each secret of a server, and wrong ones, in the right and in wrong places.

    Returns the secrets that were used, and the logs before the restart, which takes the first pod's log away.
    `marker` is sent where it must be logged.
    """
    path = f"/api/v1/server/{server}"
    tried = {f"wrong {what}": f"{what}-{secrets.token_urlsafe(24)}" for what in ("token", "rcon", "sftp", "user")}
    cluster.create(server)
    cluster.until_state(server, "running")
    console = cluster.done("GET", f"{path}/rcon")
    assert "players" in rcon.command(console["host"], console["port"], console["password"], "list")
    with pytest.raises(LoginRefused):
        rcon.command(console["host"], console["port"], tried["wrong rcon"], "list")
    account = cluster.done("PUT", f"{path}/sftp", {"password": True})
    files = cluster.done("PATCH", f"{path}/port/sftp")
    address = files["host"], files["port"]
    until(lambda: greets(*address), 15, "nobody answers at the SFTP port", not_yet=(OSError,))
    until(lambda: log_in(*address, account["user"], account["password"]), 15, "the new password does not work")
    assert not log_in(*address, account["user"], tried["wrong sftp"])
    # The host does not exist.
    webhook = f"/api/v1/webhook/of-{server}"
    cluster.done("PUT", webhook, {"url": "https://shop.example/events", "server": server})
    cluster.done("POST", f"{webhook}/rotate")
    cluster.done("POST", f"{webhook}/test")
    until(lambda: cluster.done("GET", f"{webhook}/delivery")["deliveries"], 30, "the webhook was not tested")
    cluster.done("DELETE", webhook)
    # A password in the place of the user name.
    assert not log_in(*address, tried["wrong user"], account["password"])
    assert not log_in(*address, account["password"], tried["wrong sftp"])

    for token in (cluster.api_token, tried["wrong token"]):
        url = cluster.api_url
        right = {"Authorization": f"Bearer {cluster.api_token}"}
        for place in (f"{path}/?token={token}", f"/{token}", f"/api/v1/server/{token}/", f"{path}/port/{token}"):
            assert requests.get(f"{url}{place}", headers=right, timeout=10).status_code in (200, 404)
        for header in (f"Basic {token}", token, f"Bearer {token}x"):
            answer = requests.get(f"{url}{path}/", headers={"Authorization": header}, timeout=10)
            assert answer.status_code == 401
        for body in ({token: 1}, {"ram_gb": token}, {"options": {token: token}}):
            assert cluster.call("PATCH", f"{path}/", body).status_code == 422
        line = f"GET {path}/ HTTP/1.1\r\nHost: x\r\nAuthorization Bearer {token}\r\n\r\n"
        assert b" 400 " in sent(url, line.encode())
        assert b" 400 " in sent(url, f"GET /?token={token}\r\n\r\n".encode())
    assert cluster.call("GET", f"{path}/", token=tried["wrong token"]).status_code == 401

    written = logs()
    cluster.done("PATCH", f"{path}/", {"options": {"motd": "changed"}})
    cluster.done("PATCH", f"{path}/restart")
    # The log shows helm's own error message.
    cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "scale", "statefulset", f"server-{server}", "--replicas=0")
    assert cluster.call("PATCH", f"{path}/start").status_code in (200, 409)
    requests.get(f"{cluster.api_url}/healthcheck", headers={"X-Request-Id": marker}, timeout=10)
    answer = cluster.call("GET", f"{path}/")
    assert answer.headers["X-Request-Id"]
    marked = {"Authorization": f"Bearer {cluster.api_token}", "X-Request-Id": marker}
    assert requests.get(f"{cluster.api_url}{path}/", headers=marked, timeout=10).headers["X-Request-Id"] == marker
    return {**tried, "RCON password": console["password"], "SFTP password": account["password"]}, written


def test_no_secret_is_found_anywhere(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """No secret of this test or an earlier one is found, and a known text is found in each place that is searched."""
    server, marker, processes = new_server(), f"marker-{secrets.token_hex(8)}", Processes()
    with processes.watched():
        tried, before = use_everything(cluster, server, marker)
    known = {**cluster.secrets, **present_secrets(cluster), **tried}
    for pod in pods(cluster):
        token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
        known[f"token of {pod}"] = cluster.run("kubectl", "-n", NAMESPACE, "exec", pod, "--", "cat", token)
    everywhere = {
        "a process": b"\n".join(processes.seen),
        **objects(cluster),
        **before,
        **logs(),
        **kept_lines(cluster),
    }

    # A search in the wrong place would find nothing, too.
    for place, text in {
        "a process": "helm-daemon\0",
        "events": f"server-{server}-0",
        "configmaps": "server-values.yaml",
        f"helm values of server-{server}": f'id: "{server}"',
    }.items():
        assert text.encode() in everywhere[place], place
    logged = {place: text for place, text in everywhere.items() if place.endswith(".log")}
    for written, folder in (
        (marker, "/api/"),
        ("service.audit", "/api/"),
        ("login refused", "/sftp/"),
        ("RCON", "/game/"),
    ):
        assert any(written.encode() in text for place, text in logged.items() if folder in place), written
    assert leaks({"here": b"a " + base64.b64encode(cluster.api_token.encode())}, known) == ["the API's token in here"]

    assert leaks(everywhere, known) == []
