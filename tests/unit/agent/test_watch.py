"""A watch keeps what there is, goes on from where it was, and does not hammer an API server that is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from disk_agent import watch
from disk_agent.kube import ApiError
from disk_agent.watch import Watch


class Enough(Exception):
    """Ends a loop that has no end of its own."""


class FakeKube:
    """Answers from a list: each entry is what a request gives, an exception or events."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.paths: list[str] = []

    def request(self, method: str, path: str, body: Any = None, content_type: str = "") -> Any:
        return self._next(path)

    def stream(self, path: str, seconds: int) -> Iterator[dict[str, Any]]:
        yield from self._next(path)

    def _next(self, path: str) -> Any:
        self.paths.append(path)
        if not self.answers:
            raise Enough
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def thing(name: str, version: str = "1", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version}, **more}


def listed(*things: dict[str, Any], version: str = "10", proceed: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version, "continue": proceed}, "items": list(things)}


def name_of(found: dict[str, Any]) -> str | None:
    return None if found.get("hidden") else str(found["metadata"]["name"] + found.get("text", ""))


Run = Callable[..., tuple[Watch[str], FakeKube, list[float]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_(*answers: Any) -> tuple[Watch[str], FakeKube, list[float]]:
        pauses: list[float] = []
        monkeypatch.setattr(watch.time, "sleep", pauses.append)
        kube = FakeKube(*answers)
        watching: Watch[str] = Watch(kube, "/things", "a=b", name_of, lambda: None)  # type: ignore[arg-type]
        with pytest.raises(Enough):
            watching.run()
        return watching, kube, pauses

    return run_


def test_a_list_of_several_pages_and_then_the_changes(run: Run) -> None:
    watching, kube, _ = run(
        listed(thing("a"), thing("b"), proceed="more"),
        listed(thing("c"), thing("d", hidden=True)),
        [
            {"type": "ADDED", "object": thing("e", "11")},
            {"type": "MODIFIED", "object": thing("a", "12", text="!")},
            {"type": "DELETED", "object": thing("b", "13")},
            {"type": "MODIFIED", "object": thing("c", "14", hidden=True)},
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "20"}}},
        ],
    )
    assert sorted(watching.records()) == ["a!", "e"]
    assert watching.synced.is_set()
    assert "continue=more" in kube.paths[1]
    assert "resourceVersion=10&" in kube.paths[2]
    assert "resourceVersion=20&" in kube.paths[3]
    assert all("labelSelector=a%3Db" in path for path in kube.paths)


def test_an_old_version_means_a_new_list(run: Run) -> None:
    gone = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
    watching, kube, _ = run(listed(thing("a")), [gone], listed(thing("b"), version="30"))
    assert watching.records() == ["b"]
    assert ["watch=true" in path for path in kube.paths] == [False, True, False, True]


def test_what_is_known_stays_while_the_api_server_is_away(run: Run) -> None:
    watching, kube, _ = run(listed(thing("a")), OSError("refused"), ApiError(503, "later"), OSError("refused"))
    assert watching.records() == ["a"]
    assert ["watch=true" in path for path in kube.paths] == [False, True, True, True, True]


def test_each_failure_waits_longer_than_the_one_before_up_to_half_a_minute(run: Run) -> None:
    _, _, pauses = run(*[OSError("refused") for _ in range(12)])
    longest = [min(0.5 * 2**number, 30.0) for number in range(12)]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, longest, strict=True))
    # With jitter: no two agents come back at the same moment.
    assert len({round(pause, 6) for pause in pauses}) == len(pauses)


def test_one_broken_object_does_not_hide_the_others(run: Run) -> None:
    broken = {"metadata": {"name": "broken", "resourceVersion": "1"}, "text": 5}
    watching, _, _ = run(listed(broken, thing("a")))
    assert watching.records() == ["a"]


def test_an_answer_that_is_cut_off_counts_as_away(run: Run) -> None:
    watching, _, pauses = run(listed(thing("a")), ValueError("half a line"))
    assert (watching.records(), len(pauses)) == (["a"], 1)
