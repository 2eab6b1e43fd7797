"""Backups asked for through several replicas at once, with records in memory and in a real cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from service.access import Subject
from service.assembly import build_context
from service.errors import BackupNotFound, OperationInProgress, Problem
from service.kube.client import Kube
from service.operations import backups
from service.operations.context import Context
from service.operations.operation import Operation
from service.operations.visibility import require_server
from service.records.store import RecordStore
from service.settings import Settings
from service.tokens import Token
from tests.contract.conftest import VALUES
from tests.support.fakes import FakeAccounts, FakeCluster, FakeReleases, World
from tests.support.memory_kube import LabelledKube
from tests.support.waiting import until

ACME = Token("acme", "", frozenset({"read", "operate", "admin"}), customer="acme")
OTHER = replace(ACME, name="other", customer="other")
REQUEST = {"name": "", "note": "", "locked": False}
NO_TOKENS: Any = object()


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def replicas(request: pytest.FixtureRequest, new_id: Callable[[], int]) -> tuple[int, list[Context]]:
    """A server of acme's that runs, and three replicas, each with a Lease of its own: only the records hold them."""
    id, world, settings = new_id(), World(), Settings(backup_store={"kind": "folder"})
    kube: Kube = LabelledKube()
    if request.param == "real":
        kube, settings = Kube(), replace(request.getfixturevalue("real_settings"), backup_store={"kind": "folder"})
    world.values[id] = {**VALUES, "replicas": 1, "server": {"customer": "acme", "uid": f"uid-{id}"}}
    world.revisions[id] = ["deployed"]
    world.apply(id, world.values[id])
    records = partial(RecordStore, kube, settings.servers_namespace)
    made = [
        build_context(settings, FakeCluster(world), FakeReleases(world), FakeAccounts(), NO_TOKENS, records)
        for _ in range(3)
    ]
    return id, made


def make(context: Context, id: int, key: str | None = None) -> Operation:
    """Ask one replica for a backup."""
    return backups.make(context, ACME, require_server(context, ACME, id, Subject.SERVER), REQUEST, key)


def test_of_many_at_once_one_backup_is_accepted(replicas: tuple[int, list[Context]]) -> None:
    """The others are told why; record and operation agree."""
    id, contexts = replicas

    def slug(number: int) -> str:
        try:
            return make(contexts[number % 3], id).action
        except Problem as problem:
            return problem.slug

    with ThreadPoolExecutor(9) as callers:
        answers = Counter(callers.map(slug, range(9)))
    assert answers.pop("backup") == 1
    assert answers.keys() <= {"too-many-backups", OperationInProgress.slug}
    kept = contexts[0].backups.of(f"uid-{id}")
    assert kept is not None
    [backup] = kept.backups
    [operation] = [each for each in contexts[0].operations.all() if each.target and each.target.uid == f"uid-{id}"]
    assert (backup.operation, operation.argument) == (operation.id, {"backup": backup.id})


def test_a_key_makes_one_backup_on_all_replicas(replicas: tuple[int, list[Context]]) -> None:
    """Even if they get it at the same moment."""
    id, contexts = replicas

    def one(context: Context) -> str | None:
        try:
            return make(context, id, f"key-{id}").id
        except OperationInProgress:
            return None

    with ThreadPoolExecutor(3) as callers:
        ids = set(callers.map(one, contexts)) - {None}
    assert len(ids) == 1
    assert make(contexts[0], id, f"key-{id}").id in ids
    kept = contexts[1].backups.of(f"uid-{id}")
    assert kept is not None
    assert len(kept.backups) == 1


def test_every_replica_hears_of_it_and_no_other_customer(replicas: tuple[int, list[Context]]) -> None:
    """From memory, within moments; what is found is read live."""
    id, contexts = replicas
    bystander = contexts[2]
    assert not backups.heard_of(bystander, f"b-{'0' * 20}")
    made = make(contexts[0], id).argument["backup"]
    until(lambda: backups.heard_of(bystander, made))
    contexts[0].backups.change(f"uid-{id}", lambda kept: kept.with_backup(replace(kept.backups[0], note="live")))
    assert backups.find(bystander, ACME, made).backup.note == "live"
    with pytest.raises(BackupNotFound):
        backups.find(bystander, OTHER, made)
    assert [kept.id for kept in backups.page(bystander, ACME, limit=500)[0] if kept.id == id] == [id]
    assert backups.page(bystander, OTHER, limit=500) == ([], None)
