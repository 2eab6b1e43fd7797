"""The logs of the API's real pods are JSON, and each line has the id of its request."""

import json
import uuid
from collections.abc import Callable

import requests

from tests.cluster.conftest import Cluster
from tests.cluster.replicas import NAMESPACE, logged, pods
from tests.support.waiting import until


def test_a_request_is_found_by_its_id(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The response, the access line and the audit line have the id that the client sent."""
    server, request = new_server(), f"shop-{uuid.uuid4()}"
    headers = {"Authorization": f"Bearer {cluster.api_token}", "X-Request-Id": request}
    body = {"ram_gb": 1, "disk_gb": 1, "start": False}
    path = f"/api/v1/server/{server}/"
    answer = requests.post(f"{cluster.api_url}{path}", json=body, headers=headers, timeout=30)
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (201, request)
    until(lambda: logged(cluster, "service.access", request_id=request) != [], 10, "no line of the request")

    (access,) = logged(cluster, "service.access", request_id=request)
    expected = {"method": "POST", "path": path, "status": 201, "token": "local", "outcome": "ok", "level": "info"}
    assert expected.items() <= access.items()
    (audit,) = logged(cluster, "service.audit", request_id=request)
    assert {"token": "local", "action": "create_server", "server": server, "outcome": "ok"}.items() <= audit.items()
    assert access["pod"] == audit["pod"]


def test_a_request_without_an_id_gets_one(cluster: Cluster) -> None:
    """A request without an id, or with one that could forge a log line, gets a new id, and the log has it."""
    for sent in ({}, {"X-Request-Id": 'a "b'}):
        headers = {"Authorization": f"Bearer {cluster.api_token}", **sent}
        given = requests.get(f"{cluster.api_url}/api/v1/game", headers=headers, timeout=10).headers["X-Request-Id"]
        assert len(given) == 16
        until(lambda: len(logged(cluster, "service.access", request_id=given)) == 1, 10, "no line")  # noqa: B023


def test_every_line_is_json(cluster: Cluster) -> None:
    """All lines are JSON from the first on, including gunicorn's own."""
    command = ("kubectl", "-n", NAMESPACE, "logs", "--tail=-1")
    # A replica that the autoscaler has just made has no log yet, and one that it ends takes its log along.
    ready = [
        name
        for name, pod in pods(cluster).items()
        if "deletionTimestamp" not in pod["metadata"]
        and any(container["ready"] for container in pod["status"].get("containerStatuses", []))
    ]
    lines = [line for pod in ready for line in cluster.run(*command, pod).splitlines()]
    assert lines
    for line in lines:
        assert {"time", "level", "logger", "message"} <= json.loads(line).keys()
