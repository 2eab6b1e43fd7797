"""A call means the server that had the id when it came: not the one that another customer gets meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.assembly import build_context
from service.records.store import RecordStore
from service.settings import Settings
from service.tokens import SCOPES
from tests.api.conftest import SIZES, Client
from tests.support import tokens
from tests.support.fakes import FakeAccounts, FakeCluster, FakeReleases, World
from tests.support.memory_kube import LabelledKube

SERVER = "/api/v1/server/1/"
BACKUP = f"b-{'0' * 20}"
CALLS: list[tuple[str, str, Any]] = [
    ("PATCH", "start", None),
    ("PATCH", "stop", None),
    ("PATCH", "restart", None),
    ("PATCH", "", {"ram_gb": 3}),
    ("PATCH", "suspend", {"reason": "The invoice is overdue."}),
    ("PATCH", "unsuspend", None),
    ("PUT", "schedule/nightly", {"cron": "H 4 * * *", "steps": [{"stop": {}}]}),
    ("DELETE", "schedule/nightly", None),
    ("POST", "backup/", {}),
    ("POST", "restore", {"backup": BACKUP}),
    ("POST", "undo-restore", {}),
    ("DELETE", "", None),
]


class LateReleases(FakeReleases):
    """Releases that do `meanwhile`, once, before a call gets the Lease."""

    meanwhile: Callable[[], None] | None = None

    @contextmanager
    def locked(self, id: int, wait: float = 0.0) -> Iterator[None]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        with super().locked(id, wait):
            yield


@pytest.fixture
def releases(world: World) -> LateReleases:
    return LateReleases(world)


@pytest.fixture
def client(tmp_path: Path, world: World, settings: Settings, releases: LateReleases) -> Client:
    """A client of an API with the customers acme, who has the server 1, which runs, and umbrella."""
    scopes = sorted(set(SCOPES) - {"read", "operate", "admin", "recover"})
    entries = [
        tokens.entry("shop", "shop-secret"),
        *(tokens.entry(name, f"{name}-secret", customer=name, scopes=scopes) for name in ("acme", "umbrella")),
    ]
    file = tokens.write(tmp_path / "own.json", *entries)
    settings = replace(settings, tokens_file=file, backup_store={"kind": "folder"})
    records = partial(RecordStore, LabelledKube(), settings.servers_namespace)
    context = build_context(settings, FakeCluster(world), releases, FakeAccounts(), records=records)
    client = Client(create_app(context).test_client())
    assert client.post(SERVER, SIZES, token="acme").status_code == 201
    return client


@pytest.mark.parametrize(
    ("method", "path", "body", "has_statefulset"),
    # Without a StatefulSet, a schedule's call answers 409 before it waits for the Lease.
    [(*call, True) for call in CALLS] + [(*call, False) for call in CALLS if "schedule" not in call[1]],
)
def test_another_customers_server_is_left_alone(
    client: Client, world: World, releases: LateReleases, method: str, path: str, body: Any, has_statefulset: bool
) -> None:
    """The server is deleted, and another customer creates one, before the call gets the Lease: it answers 404."""
    if not has_statefulset:
        del world.statefulsets[1]

    def replaced() -> None:
        assert client.delete(f"{SERVER}?disk=erase", token="acme").status_code == 200
        assert client.post(SERVER, SIZES, token="umbrella").status_code == 201
        later.update(values=dict(world.values[1]), history=list(world.history))

    later: dict[str, Any] = {}
    releases.meanwhile = replaced
    answer = client.call(method, SERVER + path, body, token="acme")
    assert later
    assert (answer.status_code, answer.get_json()["type"]) == (404, "/problems/server-not-found")
    assert {"values": world.values[1], "history": world.history} == later


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_a_server_without_its_statefulset_exists(
    client: Client, world: World, method: str, path: str, body: Any
) -> None:
    """No call says that there is no such server, because the cluster has lost one of its objects."""
    del world.statefulsets[1]
    answer = client.call(method, SERVER + path, body)
    assert answer.get_json().get("type") not in ("/problems/server-not-found", "/problems/internal-error")
    assert answer.status_code in (200, 202) or answer.get_json()["type"] in (
        "/problems/object-missing",
        "/problems/backup-not-found",
        "/problems/nothing-to-undo",
    )
