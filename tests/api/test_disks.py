"""How full disks are, how they grow and what is noted about them, wherever the API shows it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.kube.times import stamp
from service.operations.census import count_disks
from service.servers.usage import Usage
from service.telemetry import metrics
from tests.api.conftest import SIZES, Client
from tests.api.test_servers import problem
from tests.support.fakes import FakeCluster, World

URL = "/api/v1/server/1/"
GIB = 2**30
NO_ROOM = "failed to expand pvc with rpc error: code = ResourceExhausted desc = the pool has 3 GiB left"


def used(gib: float) -> Usage:
    """A disk of 10 GiB of which this much is used."""
    return Usage(stamp(datetime.now(UTC)), True, int(gib * GIB), 10 * GIB)


def shown(client: Client) -> dict[str, Any]:
    """The server as `GET` shows it; the list shows the same."""
    server: dict[str, Any] = client.get(URL).json or {}
    assert server.pop("success") is True
    assert client.get("/api/v1/server/").json["servers"] == [server]  # type: ignore[index]
    return server


def growing(world: World, *conditions: dict[str, Any]) -> None:
    """The storage has not grown the disk, and says this."""
    world.claims[1]["status"]["conditions"] = list(conditions)


def test_the_use_of_a_disk_is_shown(client: Client, world: World) -> None:
    """While the server runs, while it is stopped and while its disk is kept."""
    client.post(URL, SIZES)
    world.usage[1] = usage = used(2.5)
    disk = {"size_gb": 10, "used_gb": 2.5, "as_of": usage.as_of, "enforced": True}
    assert (shown(client)["disk"], shown(client)["notes"]) == (disk, [])
    client.patch(f"{URL}stop")
    assert shown(client)["disk"] == disk
    client.delete(URL)
    assert [kept["disk"] for kept in client.get("/api/v1/disk/").json["disks"]] == [disk]  # type: ignore[index]
    world.usage[1] = Usage(usage.as_of, enforced=False)
    unlimited = {"size_gb": 10, "used_gb": None, "as_of": usage.as_of, "enforced": False}
    assert [kept["disk"] for kept in client.get("/api/v1/disk/").json["disks"]] == [unlimited]  # type: ignore[index]


def test_a_full_disk_is_a_reason_and_a_note(client: Client, world: World) -> None:
    """At 90 % there is a note alone, at 100 % a reason, too."""
    client.post(URL, SIZES)
    world.usage[1] = used(9.2)
    assert (shown(client)["reason"], shown(client)["notes"]) == (
        None,
        [{"slug": "disk-nearly-full", "detail": "The disk is nearly full: 9.2 of 10 GiB are used."}],
    )
    world.usage[1] = used(10)
    server = shown(client)
    assert (server["state"], server["reason"]) == ("running", "The disk is full. The game may be unable to save.")
    assert [note["slug"] for note in server["notes"]] == ["disk-full"]


def test_a_growth_is_noted_until_the_disk_has_its_size(client: Client, world: World) -> None:
    """`disk_gb` is what was asked for, `disk.size_gb` what the disk has. The game is not restarted."""
    client.post(URL, SIZES)
    world.expandable, world.grows = True, False
    assert client.patch(URL, {"disk_gb": 20}).json == {"success": True, "restarting": False}
    server = shown(client)
    assert (server["state"], server["disk_gb"], server["disk"]["size_gb"]) == ("running", 20, 10)
    assert [note["slug"] for note in server["notes"]] == ["disk-growing"]
    growing(world, {"type": "FileSystemResizePending", "status": "True"})
    client.patch(f"{URL}stop")
    assert [note["slug"] for note in shown(client)["notes"]] == ["disk-grows-at-next-start"]
    world.grows = True
    client.patch(f"{URL}start")
    server = shown(client)
    assert (server["disk_gb"], server["disk"]["size_gb"], server["notes"]) == (20, 20, [])


def test_a_growth_that_failed_can_be_taken_back(client: Client, world: World) -> None:
    """To no less than the disk has. A growth that has not failed cannot."""
    client.post(URL, SIZES)
    world.expandable, world.grows = True, False
    client.patch(URL, {"disk_gb": 20})

    def refused(size: int) -> Any:
        answer = client.patch(URL, {"disk_gb": size})
        assert answer.status_code == 409
        return answer.json["errors"]  # type: ignore[index]

    assert refused(10) == {"disk_gb": ["must not be smaller than 20"]}
    growing(world, {"type": "NodeResizeError", "status": "True", "message": NO_ROOM})
    [note] = shown(client)["notes"]
    assert note["slug"] == "disk-growth-failed"
    assert "the pool has 3 GiB left" in note["detail"]
    assert refused(9) == {"disk_gb": ["must not be smaller than 10"]}
    assert client.patch(URL, {"disk_gb": 10}).json == {"success": True, "restarting": False}
    assert (world.values[1]["diskGb"], shown(client)["notes"]) == (10, [])


ENDS_THE_GAME: dict[str, tuple[str, str, Any]] = {
    "stop": ("PATCH", f"{URL}stop", None),
    "restart": ("PATCH", f"{URL}restart", None),
    "resize": ("PATCH", URL, {"ram_gb": 4}),
    "restore": ("POST", f"{URL}restore", {"backup": "b-00000000000000000000"}),
    "undo": ("POST", f"{URL}undo-restore", {}),
}


def somebody_deletes_the_claim(world: World) -> None:
    """With `kubectl delete pvc`. Kubernetes keeps it while a pod uses it."""
    world.claims[1]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("call", ENDS_THE_GAME.values(), ids=ENDS_THE_GAME)
def test_a_game_whose_disk_ends_with_it_is_not_ended(client: Client, world: World, call: tuple[str, str, Any]) -> None:
    """A note says so. A start finds that it runs, and what leaves the game alone works."""
    client.post(URL, SIZES)
    somebody_deletes_the_claim(world)
    assert [note["slug"] for note in shown(client)["notes"]] == ["disk-being-deleted"]
    method, path, body = call
    answer = client.call(method, path, body)
    assert problem(answer) == (409, "disk-being-deleted")
    assert "Retry-After" not in answer.headers
    assert client.patch(f"{URL}start").status_code == 200
    assert client.patch(URL, {"idle_stop_minutes": 30}).json == {"success": True, "restarting": False}
    assert (world.values[1]["replicas"], world.values[1]["ramGb"]) == (1, SIZES["ram_gb"])


def test_a_server_whose_disk_ends_can_be_suspended_and_deleted(client: Client, world: World) -> None:
    """Whoever asks for that knows what he does."""
    client.post(URL, SIZES)
    somebody_deletes_the_claim(world)
    assert client.patch(f"{URL}suspend", {"reason": "unpaid"}).status_code == 200
    assert client.delete(f"{URL}?disk=erase").status_code == 200


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_a_stopped_server_does_not_start_on_a_disk_that_ends(client: Client, world: World, verb: str) -> None:
    """Its pod would wait for a disk that does not come. A stop of it finds that it is stopped."""
    client.post(URL, {**SIZES, "start": False})
    somebody_deletes_the_claim(world)
    assert problem(client.patch(f"{URL}{verb}")) == (409, "disk-being-deleted")
    assert client.patch(f"{URL}stop").status_code == 200


def test_a_kept_disk_whose_growth_failed_is_reused_with_its_size(client: Client, world: World) -> None:
    """As a change of its size."""
    client.post(URL, SIZES)
    world.expandable, world.grows = True, False
    client.patch(URL, {"disk_gb": 20})
    growing(world, {"type": "NodeResizeError", "status": "True", "message": NO_ROOM})
    client.delete(URL)
    assert client.post(URL, {**SIZES, "disk": "reuse"}).status_code == 201
    assert shown(client)["disk_gb"] == 10


def test_metrics_sum_up_the_disks(client: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the kept ones. A claim without a volume is no disk. Without Kubernetes there is no count."""
    for id in range(1, 7):
        client.post(f"/api/v1/server/{id}/", {**SIZES, "start": id != 6})
    client.delete("/api/v1/server/5/")
    world.usage = {1: used(2), 2: used(9), 3: used(10), 5: used(1), 4: Usage(used(1).as_of, enforced=False)}
    world.claims[7] = {**world.claims[1], "metadata": {"name": "server-7", "labels": {"gameserver/id": "7"}}}
    registry = CollectorRegistry()
    monkeypatch.setattr(metrics, "REGISTRY", registry)
    metrics.count_disks(lambda: count_disks(FakeCluster(world)))
    text = generate_latest(registry).decode()
    series = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert {name: float(value) for name, value in series.items()} == {
        'gameserver_server_disks{enforced="false",fill="unknown"}': 1,
        'gameserver_server_disks{enforced="true",fill="full"}': 1,
        'gameserver_server_disks{enforced="true",fill="nearly-full"}': 1,
        'gameserver_server_disks{enforced="true",fill="ok"}': 2,
        'gameserver_server_disks{enforced="unknown",fill="unknown"}': 1,
        'gameserver_server_disk_size_bytes{enforced="false"}': 10 * GIB,
        'gameserver_server_disk_size_bytes{enforced="true"}': 40 * GIB,
        'gameserver_server_disk_size_bytes{enforced="unknown"}': 10 * GIB,
        'gameserver_server_disk_used_bytes{enforced="true"}': 22 * GIB,
    }
    world.away = True
    assert "gameserver_server_disks{" not in generate_latest(registry).decode()
