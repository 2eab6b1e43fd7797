"""Who may do what, on the real API: tokens that come and go in their Secret, and the line that each change leaves."""

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.cluster.conftest import Cluster
from tests.cluster.replicas import NAMESPACE, logged
from tests.support.tokens import entry
from tests.support.waiting import until

#: The kubelet brings a changed Secret to a pod's folder at its next sync, about a minute later at most, and it asks the
#: API server for it by a watch.
SYNC = 150


def test_a_change_is_written_down(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Who, what, which server, how it ended, and the request's id, which the client chose and finds in the answer."""
    server, id = new_server(), f"test-{secrets.token_hex(4)}"
    answer = requests.patch(
        f"{cluster.api_url}/api/v1/server/{server}/stop",
        headers={"Authorization": f"Bearer {cluster.api_token}", "X-Request-Id": id},
        timeout=30,
    )
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (404, id)
    until(lambda: logged(cluster, "service.audit", request_id=id) != [], 10, "nothing is written down")
    (line,) = logged(cluster, "service.audit", request_id=id)
    expected = {"token": "local", "action": "stop_server", "server": server, "outcome": "server-not-found"}
    assert expected.items() <= line.items()


@pytest.fixture
def tokens(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """Puts tokens beside the one that is there; they are taken away in the end."""
    name = cluster.run(
        *("kubectl", "-n", NAMESPACE, "get", "deployment", "api"),
        *("-o", "jsonpath={.spec.template.spec.volumes[?(@.name=='tokens')].secret.secretName}"),
    )
    secret = json.loads(cluster.run("kubectl", "-n", NAMESPACE, "get", "secret", name, "-o", "json"))
    before = json.loads(base64.b64decode(secret["data"]["tokens.json"]))["tokens"]

    def put(*added: dict[str, Any]) -> None:
        patch = {"stringData": {"tokens.json": json.dumps({"tokens": [*before, *added]})}}
        cluster.run("kubectl", "-n", NAMESPACE, "patch", "secret", name, "-p", json.dumps(patch))

    yield put
    put()


@pytest.mark.long
def test_tokens_come_and_go_without_a_restart(
    cluster: Cluster, new_server: Callable[[], int], tokens: Callable[..., None]
) -> None:
    """A new one works soon on every replica, with its scopes and for its customer alone; one taken away does not."""
    mine, other = new_server(), new_server()
    cluster.create(mine, start=False, customer="acme")
    cluster.create(other, start=False, customer="someone-else")
    reader, acme, nobody = (secrets.token_hex(16) for _ in range(3))
    servers = "/api/v1/server/"

    def everywhere(token: str, status: int) -> Callable[[], bool]:
        # Each call on a connection of its own, so that they are spread over the replicas.
        return lambda: all(cluster.call("GET", "/api/v1/game", token=token).status_code == status for _ in range(12))

    tokens(entry(reader, scopes=["read"]), entry(acme, customer="acme"))
    until(everywhere(reader, 200), SYNC)
    until(everywhere(acme, 200), SYNC)
    unknown = cluster.call("GET", "/api/v1/game", token=nobody)
    assert (unknown.status_code, unknown.headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')

    assert cluster.call("GET", f"{servers}{mine}/", token=reader).status_code == 200
    assert cluster.call("PATCH", f"{servers}{mine}/start", token=reader).status_code == 403
    assert cluster.call("DELETE", f"{servers}{mine}/", token=reader).status_code == 403
    listed = cluster.call("GET", servers, token=acme).json()["servers"]
    assert [server["id"] for server in listed] == [mine]
    assert cluster.call("PATCH", f"{servers}{mine}/port/primary", token=acme).status_code == 200
    for method, path in (
        ("GET", "/"),
        ("PATCH", "/start"),
        ("PATCH", "/port/primary"),
        ("GET", "/rcon"),
        ("GET", "/sftp"),
        ("DELETE", "/?disk=erase"),
    ):
        assert cluster.call(method, f"{servers}{other}{path}", token=acme).status_code == 404, path
    cluster.done("DELETE", f"{servers}{other}/")
    assert other not in [disk["id"] for disk in cluster.call("GET", "/api/v1/disk/", token=acme).json()["disks"]]
    assert cluster.call("DELETE", f"{servers}{other}/?disk=erase", token=acme).status_code == 404

    tokens(entry(acme, customer="acme"))
    until(everywhere(reader, 401), SYNC)
    assert everywhere(acme, 200)()
