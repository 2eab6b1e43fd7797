"""Access on the real API: tokens that come and go in their Secret, and the audit line of each change."""

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.cluster.conftest import Cluster
from tests.cluster.replicas import NAMESPACE, logged
from tests.docs.snippets import block
from tests.support.tokens import entry
from tests.support.waiting import until

#: A change of the tokens takes effect on every replica within this many seconds.
SOON = 5


def test_a_change_leaves_an_audit_line(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The audit line has the token, action, server, outcome and the request's id, which the client may choose."""
    server, id = new_server(), f"test-{secrets.token_hex(4)}"
    answer = requests.patch(
        f"{cluster.api_url}/api/v1/server/{server}/stop",
        headers={"Authorization": f"Bearer {cluster.api_token}", "X-Request-Id": id},
        timeout=30,
    )
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (404, id)
    until(lambda: logged(cluster, "service.audit", request_id=id) != [], 10, "no audit line")
    (line,) = logged(cluster, "service.audit", request_id=id)
    expected = {"token": "local", "action": "stop_server", "server": server, "outcome": "server-not-found"}
    assert expected.items() <= line.items()


@pytest.fixture
def tokens(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """A function that adds tokens to the operator's Secret. They are removed at the end."""
    name = cluster.run(
        *("kubectl", "-n", NAMESPACE, "get", "deployment", "api"),
        *("-o", "jsonpath={.spec.template.spec.containers[0].env[?(@.name=='TOKENS_SECRET')].value}"),
    )
    secret = json.loads(cluster.run("kubectl", "-n", NAMESPACE, "get", "secret", name, "-o", "json"))
    before = json.loads(base64.b64decode(secret["data"]["tokens.json"]))["tokens"]

    def put(*added: dict[str, Any]) -> None:
        patch = {"stringData": {"tokens.json": json.dumps({"tokens": [*before, *added]})}}
        cluster.run("kubectl", "-n", NAMESPACE, "patch", "secret", name, "-p", json.dumps(patch))

    yield put
    put()


def everywhere(cluster: Cluster, token: str, status: int) -> Callable[[], bool]:
    """A check that every replica answers with this status. New connections spread the calls over all replicas."""
    return lambda: all(cluster.call("GET", "/api/v1/game", token=token).status_code == status for _ in range(12))


def test_tokens_come_and_go_without_a_restart(
    cluster: Cluster, new_server: Callable[[], int], tokens: Callable[..., None]
) -> None:
    """A new token soon works on every replica, for its scopes and its customer only. A removed one stops working."""
    mine, other = new_server(), new_server()
    cluster.create(mine, start=False, customer="acme")
    cluster.create(other, start=False, customer="someone-else")
    reader, acme, nobody = (secrets.token_hex(16) for _ in range(3))
    servers = "/api/v1/server/"

    tokens(entry(reader, scopes=["read"]), entry(acme, customer="acme"))
    until(everywhere(cluster, reader, 200), SOON)
    until(everywhere(cluster, acme, 200), SOON)
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
    until(everywhere(cluster, reader, 401), SOON)
    assert everywhere(cluster, acme, 200)()


@pytest.fixture
def given_out(cluster: Cluster) -> Iterator[list[str]]:
    """The names of the tokens that the test creates through the API. They are deleted after the test."""
    names: list[str] = []
    yield names
    for name in names:
        assert cluster.call("DELETE", f"/api/v1/token/{name}").status_code in (200, 404)


def test_a_created_token_works_on_every_replica(cluster: Cluster, given_out: list[str]) -> None:
    """Within 5 seconds after the call, whichever replica took it. The same is true of its deletion."""
    name = f"test-{secrets.token_hex(4)}"
    given_out.append(name)
    body = {"name": name, "scopes": ["read"], "customer": "acme", "expires_in_s": 600}
    issued = cluster.done("POST", "/api/v1/token", body)
    until(everywhere(cluster, issued["token"], 200), SOON)
    assert cluster.call("PATCH", "/api/v1/server/1/stop", token=issued["token"]).status_code == 403
    (listed,) = (token for token in cluster.done("GET", "/api/v1/token")["tokens"] if token["name"] == name)
    assert (listed["made_by"], listed["expires"]) == ("local", issued["expires"])
    cluster.done("DELETE", f"/api/v1/token/{name}")
    until(everywhere(cluster, issued["token"], 401), SOON)


def test_of_many_that_open_a_login_link_one_gets_a_token(cluster: Cluster, given_out: list[str]) -> None:
    """Of eight clients that open a link at once, on all replicas, one gets a token of the link's customer."""
    link = cluster.done("POST", "/api/v1/login-link", {"customer": "acme", "minutes": 5})["link"]
    # A replica that has not heard of the link yet answers as if there were no such link.
    time.sleep(SOON)
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda _: requests.get(f"{cluster.api_url}{link}", timeout=30), range(8)))
    (first,) = (answer for answer in opened if answer.status_code == 200)
    given_out.append(first.json()["name"])
    cluster.secrets["GET a login link"] = first.json()["token"]
    assert sorted(answer.status_code for answer in opened) == [200] + [404] * 7
    assert (first.json()["customer"], first.headers["Referrer-Policy"]) == ("acme", "no-referrer")
    until(everywhere(cluster, first.json()["token"], 200), SOON)


def test_all_tokens_that_were_given_out_are_ended_as_written(cluster: Cluster, given_out: list[str]) -> None:
    """The command of docs/operations.md ends all of them, and the API can create new ones afterwards."""
    for _ in range(2):
        name = f"test-{secrets.token_hex(4)}"
        given_out.append(name)
        issued = cluster.done("POST", "/api/v1/token", {"name": name, "scopes": ["read"]})
        until(everywhere(cluster, issued["token"], 200), SOON)
        script = block("docs/operations.md", "kubectl -n gameserver-system patch secret api-issued-tokens")
        cluster.run("bash", "-euo", "pipefail", "-c", script)
        until(everywhere(cluster, issued["token"], 401), SOON)
    assert cluster.done("GET", "/api/v1/token")["tokens"] == []
