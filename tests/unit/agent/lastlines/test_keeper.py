"""The last lines are kept under the uid of the server whose pod it was, or not at all."""

from __future__ import annotations

import base64
import gzip
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from disk_agent.kube import METADATA, METADATA_LIST, ApiError
from disk_agent.lastlines import keeper as module
from disk_agent.lastlines import podlogs
from disk_agent.lastlines.keeper import AGAIN_SECONDS, MOST_DELETED, SWEEP_SECONDS, TRIES, Keeper
from disk_agent.lastlines.podlogs import PodLogs
from disk_agent.lastlines.secret import secret
from disk_agent.objects import Claim
from tests.unit.agent.lastlines.nodelogs import PodFolder, piece
from tests.unit.agent.test_plan import SETTINGS

SECRETS = "/api/v1/namespaces/gameserver-sftp/secrets"
SERVERS = "namespaces/gameservers"
UID, LATER = (f"6cf83f54-aaaa-4000-8000-00000000000{number}" for number in (1, 2))


class Cluster:
    """Pods, StatefulSets and claims by their paths, and the Secrets. `broken` is the error that every request gets."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.secrets: dict[str, Any] = {}
        self.broken: Exception | None = None
        self.conflicts = 0
        self.requests: list[str] = []
        self._version = 0

    def server(self, pod: PodFolder, uid: str = UID, id: int = 7, created: str = "2026-11-27T11:00:00Z") -> None:
        """The server runs in this pod."""
        owner = {"kind": "StatefulSet", "uid": f"set-{uid}"}
        spec = {"gameserver/server": json.dumps({"uid": uid})}
        metadata = {"uid": pod.uid, "creationTimestamp": created, "ownerReferences": [owner]}
        self.objects[f"/api/v1/{SERVERS}/pods/server-{id}-0"] = {"metadata": metadata}
        path = f"/apis/apps/v1/{SERVERS}/statefulsets/server-{id}"
        self.objects[path] = {"metadata": {"uid": f"set-{uid}", "annotations": spec}}
        claim = {"name": f"server-{id}", "annotations": spec}
        self.objects[f"/api/v1/{SERVERS}/persistentvolumeclaims/server-{id}"] = {"metadata": claim}

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "", accept: str = "application/json"
    ) -> Any:
        self.requests.append(f"{method} {path}")
        if self.broken:
            raise self.broken
        address = urlsplit(path)
        if method == "GET" and not address.query:
            assert accept == METADATA
            if path not in self.objects:
                raise ApiError(404, "not found")
            return self.objects[path]
        if method == "GET":
            assert accept == METADATA_LIST
            field = parse_qs(address.query).get("fieldSelector", [""])[0].removeprefix("metadata.name=")
            found = self.secrets if address.path == SECRETS else self._claims()
            items = [{"metadata": each["metadata"]} for name, each in found.items() if field in ("", name)]
            return {"items": items}
        return self._write(method, address.path.removeprefix(f"{SECRETS}/"), body)

    def _claims(self) -> dict[str, Any]:
        return {path.split("/")[-1]: each for path, each in self.objects.items() if "/persistentvolumeclaims/" in path}

    def _write(self, method: str, name: str, body: Any) -> Any:
        if self.conflicts:
            self.conflicts -= 1
            raise ApiError(409, "conflict")
        self._version += 1
        if method == "POST":
            name = body["metadata"]["name"]
            if name in self.secrets:
                raise ApiError(409, "exists")
        elif name not in self.secrets:
            raise ApiError(404, "not found")
        elif method == "DELETE":
            if body["preconditions"]["resourceVersion"] != self.secrets[name]["metadata"]["resourceVersion"]:
                raise ApiError(409, "conflict")
            return self.secrets.pop(name)
        elif body["metadata"]["resourceVersion"] != self.secrets[name]["metadata"]["resourceVersion"]:
            raise ApiError(409, "conflict")
        metadata = {**body["metadata"], "uid": f"secret-{name}", "resourceVersion": str(self._version)}
        self.secrets[name] = {**self.secrets.get(name, {}), **body, "metadata": metadata}
        return self.secrets[name]

    def kept(self, uid: str = UID) -> tuple[list[bytes], dict[str, Any]]:
        """The lines in a server's Secret, without their times, and what is said about them."""
        data = self.secrets[f"log-{uid}"]["data"]
        lines = gzip.decompress(base64.b64decode(data["log.gz"])).splitlines()
        return [line.partition(b" ")[2] for line in lines], json.loads(base64.b64decode(data["about"]))


class Place:
    """A node with an agent, and the cluster around it."""

    def __init__(self, root: Path) -> None:
        self.root, self.now = root, 1000.0
        self.cluster = Cluster()
        self.claims = [Claim("7", "pv-7", UID)]
        self.keeper = self.agent()

    def agent(self) -> Keeper:
        """A new agent."""
        logs = PodLogs(self.root, "gameservers")
        return Keeper(self.cluster, SETTINGS, lambda: self.claims, logs)  # type: ignore[arg-type]

    def step(self, seconds: float = 0) -> None:
        """Both threads do what they have to, some seconds later."""
        self.now += seconds
        self.keeper.look()
        self.keeper.write(self.now)

    def run(self, *lines: bytes, pod: int = 1, uid: str = UID, created: str = "2026-11-27T11:00:00Z") -> PodFolder:
        """A pod that has written these lines, and has been seen."""
        folder = PodFolder(self.root, number=pod)
        folder.write(b"".join(piece(line, number) for number, line in enumerate(lines)))
        self.cluster.server(folder, uid, created=created)
        self.step()
        return folder


@pytest.fixture
def place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Place:
    caplog.set_level(logging.INFO)
    return Place(tmp_path)


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why nothing was kept."""
    return [record.fields["error"] for record in caplog.records if record.getMessage() == "last lines not kept"]  # type: ignore[attr-defined]


def test_the_last_lines_are_kept(place: Place) -> None:
    """Under the server's uid, when the pod's log is gone."""
    pod = place.run(b"one", b"two")
    assert place.cluster.secrets == {}
    pod.remove()
    place.step()
    lines, about = place.cluster.kept()
    assert lines == [b"one", b"two"]
    ended = about.pop("ended")
    assert about == {"pod": pod.uid, "restarts": 0, "created": "2026-11-27T11:00:00Z", "cut": False}
    assert datetime.now(UTC) - datetime.fromisoformat(ended) < timedelta(minutes=1)


def test_those_of_the_last_run_replace_them(place: Place) -> None:
    """One Secret per server."""
    place.run(b"one").remove()
    place.step()
    place.run(b"two", pod=2).remove()
    place.step()
    assert place.cluster.kept()[0] == [b"two"]
    assert len(place.cluster.secrets) == 1


def test_a_later_server_with_the_id_is_another(place: Place) -> None:
    """It has another uid, and its own Secret, also if it has the disk of the one before."""
    one = place.run(b"one")
    one.remove()
    place.step()
    place.claims = [Claim("7", "pv-7", LATER)]
    place.run(b"two", pod=2, uid=LATER).remove()
    place.step()
    assert [place.cluster.kept(uid)[0] for uid in (UID, LATER)] == [[b"one"], [b"two"]]


def test_an_old_pod_is_not_the_later_servers(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """An agent that has just started finds the pod of a server that was deleted, and a later one with id and disk."""
    pod = PodFolder(place.root)
    pod.write(piece(b"one"))
    place.cluster.server(pod, LATER)
    path = f"/api/v1/{SERVERS}/pods/server-7-0"
    place.cluster.objects[path]["metadata"]["ownerReferences"][0]["uid"] = f"set-{UID}"
    place.claims = [Claim("7", "pv-7", LATER)]
    place.step()
    pod.remove()
    place.step()
    assert place.cluster.secrets == {}
    assert reasons(caplog) == ["it is not known which server's pod it was"]


def test_a_pod_that_is_gone_before_it_was_asked_for(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Another pod has its name by now."""
    pod = PodFolder(place.root)
    pod.write(piece(b"one"))
    place.cluster.server(PodFolder(place.root, number=2))
    place.step()
    pod.remove()
    place.step()
    assert place.cluster.secrets == {}
    assert reasons(caplog) == ["it is not known which server's pod it was"]


@pytest.mark.parametrize("claims", [[], [Claim("7", "pv-7", LATER)], [Claim("8", "pv-8", UID)]])
def test_nothing_is_kept_of_a_disk_that_is_erased(
    place: Place, claims: list[Claim], caplog: pytest.LogCaptureFixture
) -> None:
    """The erase has deleted the Secret already, while the pod was still stopping."""
    pod = place.run(b"one")
    place.claims = claims
    pod.remove()
    place.step()
    assert place.cluster.secrets == {}
    assert reasons(caplog) == ["its disk is being erased, or is another server's"]


def test_an_empty_log(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is written."""
    pod = place.run()
    pod.write(b"no line\n")
    pod.remove()
    place.step()
    assert place.cluster.secrets == {}
    assert reasons(caplog) == ["its log is empty"]


def test_a_late_agent_does_not_replace_a_later_pods_lines(place: Place) -> None:
    """A node that comes back ends its pod only then."""
    old = place.run(b"old")
    place.run(b"new", pod=2, created="2026-11-27T11:30:00Z").remove()
    place.step()
    old.remove()
    place.step()
    assert place.cluster.kept()[0] == [b"new"]


def test_it_tries_again_while_kubernetes_is_away(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Asking whose pod it is, and writing. The error is logged once."""
    place.cluster.broken = OSError("away")
    pod = place.run(b"one")
    place.step(AGAIN_SECONDS)
    place.cluster.broken = None
    place.step(AGAIN_SECONDS)
    place.cluster.broken = ApiError(503, "away")
    pod.remove()
    place.step()
    place.cluster.broken, place.cluster.conflicts = None, 2
    for _ in range(4):
        place.step(60)
    assert place.cluster.kept()[0] == [b"one"]
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("server of a pod not known") == 1


def test_it_gives_up_in_the_end(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """And says so; it holds nothing of it any more."""
    pod = place.run(b"one")
    place.cluster.broken = ApiError(403, "no right")
    pod.remove()
    for _ in range(TRIES + 1):
        place.step(60)
    assert reasons(caplog) == ["403: no right"]
    place.cluster.broken = None
    place.step(60)
    assert place.cluster.secrets == {}


def test_a_crowd_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of too many that end at once, the first are not kept."""
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    pods = [PodFolder(place.root, server, server) for server in (1, 2, 3)]
    for server, pod in enumerate(pods, 1):
        pod.write(piece(b"one"))
        place.cluster.server(pod, f"uid-{server}", server)
    place.claims = [Claim(str(server), f"pv-{server}", f"uid-{server}") for server in (1, 2, 3)]
    place.step()
    for pod in pods:
        pod.remove()
    place.step()
    assert len(place.cluster.secrets) == 2
    assert reasons(caplog) == ["too many ended at once"]


def add(place: Place, uid: str, *, ended: datetime, bytes: int = 100, id: str = "7") -> None:
    """A Secret that an agent has written."""
    stamp = ended.strftime("%Y-%m-%dT%H:%M:%SZ")
    place.cluster.request("POST", SECRETS, secret(f"log-{uid}", id, b"x" * bytes, {"created": stamp, "ended": stamp}))


def test_the_oldest_are_dropped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a write, when all together are too many."""
    monkeypatch.setattr("disk_agent.lastlines.secret.too_many.__defaults__", (8000,))
    now = datetime.now(UTC)
    place.claims += [Claim(str(id), f"pv-{id}", f"uid-{id}") for id in range(1, 5)]
    for id in range(1, 5):
        add(place, f"uid-{id}", ended=now - timedelta(hours=id), bytes=100)
    place.run(b"one").remove()
    place.step(SWEEP_SECONDS)
    assert place.cluster.secrets.keys() == {f"log-{UID}", "log-uid-1", "log-uid-2"}


def test_what_is_left_over_is_dropped(place: Place) -> None:
    """Of a disk that was erased while no agent saw its server end. What the claims in memory lack is looked up."""
    now = datetime.now(UTC)
    for uid, id, age in ((UID, "7", 60), ("gone", "8", 60), ("new", "9", 1), ("unbound", "10", 60)):
        add(place, uid, ended=now - timedelta(minutes=age), id=id)
    spec = {"gameserver/server": json.dumps({"uid": "unbound"})}
    claim = {"metadata": {"name": "server-10", "annotations": spec}}
    place.cluster.objects[f"/api/v1/{SERVERS}/persistentvolumeclaims/server-10"] = claim
    place.step(SWEEP_SECONDS)
    assert place.cluster.secrets.keys() == {f"log-{UID}", "log-new", "log-unbound"}
    requests = len(place.cluster.requests)
    place.step(1)
    assert len(place.cluster.requests) == requests


def test_another_agent_sweeps_too(place: Place) -> None:
    """What it has deleted or rewritten meanwhile is left to it."""
    add(place, "gone", ended=datetime.now(UTC) - timedelta(hours=1), id="8")
    place.cluster.conflicts = 1
    place.step(SWEEP_SECONDS)
    assert place.cluster.secrets.keys() == {"log-gone"}
    place.step(SWEEP_SECONDS)
    assert place.cluster.secrets == {}


def test_a_sweep_is_bounded(place: Place) -> None:
    """The rest is left to the next ones."""
    for number in range(MOST_DELETED + 1):
        add(place, f"gone-{number}", ended=datetime.now(UTC) - timedelta(hours=1), id="8")
    place.step(SWEEP_SECONDS)
    assert len(place.cluster.secrets) == 1


def test_a_log_that_cannot_be_read_disturbs_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said why nothing is kept of it."""
    pod = place.run(b"one")

    def broken(run: podlogs.RunLog) -> Any:
        raise OSError("the disk is broken")

    monkeypatch.setattr(podlogs.RunLog, "end", broken)
    pod.remove()
    place.step()
    assert reasons(caplog) == ["the disk is broken"]
