"""Who may do what, on the real API: tokens that come and go in their Secret, and the line that each change leaves."""

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

#: Within so many seconds a change of the tokens counts on every replica.
SOON = 5


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
    """Whether every replica answers so: each call has a connection of its own, so that they are spread over them."""
    return lambda: all(cluster.call("GET", "/api/v1/game", token=token).status_code == status for _ in range(12))


def test_tokens_come_and_go_without_a_restart(
    cluster: Cluster, new_server: Callable[[], int], tokens: Callable[..., None]
) -> None:
    """A new one works soon on every replica, with its scopes and for its customer alone; one taken away does not."""
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
    """Names of tokens that the API gives out; they are ended after the test."""
    names: list[str] = []
    yield names
    for name in names:
        assert cluster.call("DELETE", f"/api/v1/token/{name}").status_code in (200, 404)


def test_a_token_that_is_given_out_counts_on_every_replica(cluster: Cluster, given_out: list[str]) -> None:
    """Within 5 seconds after the call, whichever replica took that; so does its end."""
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
    """At once, on all replicas; it is a token of the link's customer."""
    link = cluster.done("POST", "/api/v1/login-link", {"customer": "acme", "minutes": 5})["link"]
    # Until every replica has heard of it: one that has not yet says what it says of a link that is none.
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
    """docs/operations.md, by a hand on the Secret; from then on the API gives out others."""
    for _ in range(2):
        name = f"test-{secrets.token_hex(4)}"
        given_out.append(name)
        issued = cluster.done("POST", "/api/v1/token", {"name": name, "scopes": ["read"]})
        until(everywhere(cluster, issued["token"], 200), SOON)
        script = block("docs/operations.md", "kubectl -n gameserver-system patch secret api-issued-tokens")
        cluster.run("bash", "-euo", "pipefail", "-c", script)
        until(everywhere(cluster, issued["token"], 401), SOON)
    assert cluster.done("GET", "/api/v1/token")["tokens"] == []
