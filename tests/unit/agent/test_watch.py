"""A watch keeps all objects, continues where it stopped, and does not hammer an API server that is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from disk_agent.kube import ApiError
from disk_agent.watch import Watch


class NoMoreResponses(Exception):
    """Ends the watch's endless loop."""


class FakeKube:
    """Responds from a list; each entry is a response, an exception or a list of events."""

    def __init__(self, *responses: Any) -> None:
        self.responses = list(responses)
        self.paths: list[str] = []

    def request(self, method: str, path: str, body: Any = None, content_type: str = "") -> Any:
        return self._next(path)

    def stream(self, path: str, seconds: int) -> Iterator[dict[str, Any]]:
        yield from self._next(path)

    def _next(self, path: str) -> Any:
        self.paths.append(path)
        if not self.responses:
            raise NoMoreResponses
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response


def item(name: str, version: str = "1", **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version}, **fields}


def page(*items: dict[str, Any], version: str = "10", continue_: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version, "continue": continue_}, "items": list(items)}


def name_of(item: dict[str, Any]) -> str | None:
    return None if item.get("hidden") else str(item["metadata"]["name"] + item.get("text", ""))


Run = Callable[..., tuple[Watch[str], FakeKube, list[float]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_(*responses: Any) -> tuple[Watch[str], FakeKube, list[float]]:
        pauses: list[float] = []
        monkeypatch.setattr("disk_agent.watch.time.sleep", pauses.append)
        kube = FakeKube(*responses)
        watching: Watch[str] = Watch(kube, "/things", "a=b", name_of, lambda: None)  # type: ignore[arg-type]
        with pytest.raises(NoMoreResponses):
            watching.run()
        return watching, kube, pauses

    return run_


def test_all_pages_are_listed_and_then_changes_followed(run: Run) -> None:
    watching, kube, _ = run(
        page(item("a"), item("b"), continue_="more"),
        page(item("c"), item("d", hidden=True)),
        [
            {"type": "ADDED", "object": item("e", "11")},
            {"type": "MODIFIED", "object": item("a", "12", text="!")},
            {"type": "DELETED", "object": item("b", "13")},
            {"type": "MODIFIED", "object": item("c", "14", hidden=True)},
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "20"}}},
        ],
    )
    assert sorted(watching.records()) == ["a!", "e"]
    assert watching.synced.is_set()
    assert "continue=more" in kube.paths[1]
    assert "resourceVersion=10&" in kube.paths[2]
    assert "resourceVersion=20&" in kube.paths[3]
    assert all("labelSelector=a%3Db" in path for path in kube.paths)


def test_after_410_gone_it_lists_again(run: Run) -> None:
    expired = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
    watching, kube, _ = run(page(item("a")), [expired], page(item("b"), version="30"))
    assert watching.records() == ["b"]
    assert ["watch=true" in path for path in kube.paths] == [False, True, False, True]


def test_records_stay_while_the_api_server_is_away(run: Run) -> None:
    watching, kube, _ = run(page(item("a")), OSError("refused"), ApiError(503, "later"), OSError("refused"))
    assert watching.records() == ["a"]
    assert ["watch=true" in path for path in kube.paths] == [False, True, True, True, True]


def test_each_failure_waits_longer_than_the_one_before_up_to_half_a_minute(run: Run) -> None:
    _, _, pauses = run(*[OSError("refused") for _ in range(12)])
    limits = [min(0.5 * 2**number, 30.0) for number in range(12)]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, limits, strict=True))
    # With jitter, so that no two agents return at the same moment.
    assert len({round(pause, 6) for pause in pauses}) == len(pauses)


def test_one_broken_object_does_not_hide_the_others(run: Run) -> None:
    broken = {"metadata": {"name": "broken", "resourceVersion": "1"}, "text": 5}
    watching, _, _ = run(page(broken, item("a")))
    assert watching.records() == ["a"]


def test_a_response_that_is_cut_off_counts_as_a_failure(run: Run) -> None:
    watching, _, pauses = run(page(item("a")), ValueError("half a line"))
    assert (watching.records(), len(pauses)) == (["a"], 1)
