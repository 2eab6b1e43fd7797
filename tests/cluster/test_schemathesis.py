"""The running API conforms to the OpenAPI document that it publishes, as schemathesis checks it."""

import time
import traceback
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings, strategies
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.cluster.conftest import Cluster
from tests.support.waiting import until

CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL2mCL181PUlONafAsoXZ401Tu1OFFE/3KvxBdZIunej"
schemathesis.openapi.format("ssh-public-key", strategies.text("abc ", max_size=9).map(f"{_KEY} {{}}".format))

#: All valid ids are replaced by a few of our own, so that calls meet the same servers. The last one has no server.
_FIRST = 9 * 10**15 + int(time.time() * 10) % 10**9 * 10
_SERVERS = range(_FIRST, _FIRST + 3)
_NONE = _FIRST + 3


@pytest.fixture(scope="session")
def published(shared_cluster: Cluster) -> Iterator[Any]:
    """The document that the API publishes. Servers, tokens and webhooks that the calls make are deleted at the end."""
    schema = schemathesis.openapi.from_url(f"{shared_cluster.api_url}/openapi.json")
    schema.hook(map_path_parameters)
    schema.hook(map_body)
    schema.hook(map_query)
    for server in _SERVERS[:2]:
        shared_cluster.create(server, start=False)
    before = _token_names(shared_cluster)
    webhooks_before = _webhook_names(shared_cluster)
    yield schema
    for name in _token_names(shared_cluster) - before:
        shared_cluster.done("DELETE", f"/api/v1/token/{name}")
    for name in _webhook_names(shared_cluster) - webhooks_before:
        shared_cluster.done("DELETE", f"/api/v1/webhook/{name}")
    for server in (*_SERVERS, _NONE):
        until(partial(_erased, shared_cluster, server), 60, f"server {server} is not erased")


def _erased(cluster: Cluster, server: int) -> bool:
    return cluster.call("DELETE", f"/api/v1/server/{server}/?disk=erase").status_code in (200, 404)


def _token_names(cluster: Cluster) -> set[str]:
    return {token["name"] for token in cluster.done("GET", "/api/v1/token")["tokens"]}


def _webhook_names(cluster: Cluster) -> set[str]:
    return {webhook["name"] for webhook in cluster.done("GET", "/api/v1/webhook")["webhooks"]}


def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Use our own ids. Start and restart get the one without a server, so that no game starts."""
    if isinstance(path_parameters, dict) and type(path_parameters.get("id")) is int and path_parameters["id"] > 0:
        starts = context.operation.path.endswith(("/start", "/restart"))
        id = _NONE if starts else _SERVERS[path_parameters["id"] % len(_SERVERS)]
        return {**path_parameters, "id": id}
    return path_parameters


def map_body(context: Any, body: Any) -> Any:
    """Create servers with `start: false` and webhooks with `enabled: false`, unless these values are invalid."""
    webhook = context.operation.method.upper() == "PUT" and context.operation.path.startswith("/api/v1/webhook/")
    if webhook and isinstance(body, dict) and body.get("enabled", True) is True:
        return {**body, "enabled": False}
    creates = context.operation.method.upper() == "POST" and context.operation.path.startswith("/api/v1/server/")
    if creates and isinstance(body, dict) and body.get("start", True) is True:
        return {**body, "start": False}
    return body


def map_query(context: Any, query: Any) -> Any:
    """Do not wait for events, and follow no log: that answer has no end."""
    if isinstance(query, dict) and query.get("follow") in (True, "true"):
        query = {**query, "follow": "false"}
    is_number = isinstance(query, dict) and type(query.get("wait")) is int
    return {**query, "wait": min(query["wait"], 0)} if is_number else query


def wrong_answers(operation: Any, mode: GenerationMode, examples: int, cluster: Cluster) -> list[str]:
    """Call one operation with valid or with invalid requests, and return what was wrong with the answers."""
    wrong: list[str] = []

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    def send(case: Any) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {cluster.api_token}"}, timeout=30)
        # The web server refuses a request line of more than 4 KiB. The document does not mention that.
        if answer.status_code == 414:
            return
        # Not raised, because Hypothesis would repeat the call, and the servers have changed by then.
        try:
            case.validate_response(answer, checks=CHECKS)
        except (AssertionError, BaseExceptionGroup) as error:
            wrong.append("".join(traceback.format_exception_only(error))[:3000])
        if answer.status_code >= 500 and not waits(answer):
            wrong.append(f"{case.as_curl_command()}\n{answer.status_code} {answer.text}")

    try:
        send()
    except Unsatisfiable:
        # An operation without parameters and body cannot be called wrongly.
        assert mode is GenerationMode.NEGATIVE
    return wrong


def waits(answer: Any) -> bool:
    """Whether the answer is a 503 that a later call can avoid, such as for files of a disk that no node has yet."""
    refused = "refused-by-cluster" in answer.text
    return answer.status_code == 503 and "Retry-After" in answer.headers and not refused


def every_operation(published: Any, cluster: Cluster, examples: int) -> None:
    """Check all operations of the document, and show everything that is wrong together."""
    operations = [result.ok() for result in published.get_all_operations()]
    assert len(operations) > 10
    wrong = [
        answer
        for operation in operations
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        for answer in wrong_answers(operation, mode, examples, cluster)
    ]
    assert wrong == [], "\n\n".join(wrong)


def test_every_answer_is_as_published(published: Any, cluster: Cluster) -> None:
    """No request gets a server error, or a status, header, type or body that the document does not list."""
    every_operation(published, cluster, examples=8)


@pytest.mark.long
def test_every_answer_is_as_published_for_long(published: Any, cluster: Cluster) -> None:
    """The same is true of many more requests."""
    every_operation(published, cluster, examples=80)
