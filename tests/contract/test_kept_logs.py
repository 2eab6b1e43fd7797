"""The contract of the kept lines, for the fake of the API's tests and for the Secrets that the agents write.

tests/cluster/test_last_lines.py checks both on a real cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from disk_agent.lastlines.secret import secret
from disk_agent.lastlines.text import lines_of, packed
from service.errors import ClusterUnavailable, FileAccessNotInstalled
from service.files.keptlogs import SecretKeptLogs
from service.kube.client import path
from service.logs.lines import Place, Run
from service.operations.interfaces import KeptLogs
from service.settings import Settings
from tests.support.fakes import FakeKeptLogs
from tests.support.memory_kube import MemoryKube

NAMESPACE = "gameserver-sftp"
UID, OTHER = "6cf83f54-aaaa-4000-8000-000000000001", "6cf83f54-aaaa-4000-8000-000000000002"
ENDED = "2026-11-27T12:30:00Z"
LINES = ("2026-11-27T12:00:00.000000001Z one", "2026-11-27T12:00:00.000000001Z two", "2026-11-27T12:00:01Z \x1b[31mred")


@dataclass
class Kept:
    """The lines, and what only an agent, Kubernetes or an operator can do."""

    logs: KeptLogs
    keep: Callable[[str], None]
    away: Callable[[], None]


@pytest.fixture(params=["fake", "real"])
def kept(request: pytest.FixtureRequest) -> Kept:
    """Each test with this fixture runs against both kinds."""
    if request.param == "fake":
        fake = FakeKeptLogs()
        return Kept(
            fake,
            lambda uid: fake.keep(uid, *LINES, pod="pod", ended=ENDED, cut=True),
            lambda: setattr(fake, "away", True),
        )
    kube = MemoryKube()

    def keep(uid: str) -> None:
        """As the agent does it, from the file on the node."""
        data = "".join("{} stdout F {}\n".format(*line.split(" ", 1)) for line in LINES).encode()
        text = packed(lines_of(data, whole=True)[0], cut=True)
        assert text is not None
        about = {"pod": "pod", "restarts": 0, "created": ENDED, "ended": ENDED, "cut": text.cut}
        kube.create(path("v1", NAMESPACE, "secrets"), secret(f"log-{uid}", "7", text.data, about))

    return Kept(SecretKeptLogs(replace(Settings(), sftp_namespace=NAMESPACE), kube), keep, kube.away)


def test_what_was_kept_is_read(kept: Kept) -> None:
    """With the ids that the lines had, made harmless, and of this server alone."""
    assert kept.logs.read(UID) is None
    kept.keep(UID)
    log = kept.logs.read(UID)
    assert log is not None
    assert (log.run, log.ended, log.cut) == (Run("pod", 0), ENDED, True)
    assert [line.text for line in log.lines] == ["one", "two", "red"]
    second = Place(Run("pod", 0), 1795780800 * 10**9 + 1, 2)
    assert log.lines[1].place == second
    assert kept.logs.read(OTHER) is None


def test_removing_twice_is_removing_once(kept: Kept) -> None:
    """Removing what never was is no error either."""
    kept.logs.remove(UID)
    kept.keep(UID)
    kept.keep(OTHER)
    for _ in range(2):
        kept.logs.remove(UID)
        assert kept.logs.read(UID) is None
    assert kept.logs.read(OTHER) is not None


def test_kubernetes_away(kept: Kept) -> None:
    """That is an error: nothing is said about what is kept."""
    kept.away()
    for call in (kept.logs.read, kept.logs.remove):
        with pytest.raises(ClusterUnavailable):
            call(UID)


def test_without_the_chart_nothing_is_kept() -> None:
    """The chart gives the API its rights."""
    kube = MemoryKube()

    def refuse(method: str, path: str) -> None:
        raise FileAccessNotInstalled

    kube.before = refuse
    logs = SecretKeptLogs(replace(Settings(), sftp_namespace=NAMESPACE), kube)
    assert logs.read(UID) is None
    logs.remove(UID)


@pytest.mark.parametrize("uid", ["", "../server-1", "a/b", "A", "a" * 64])
def test_a_uid_that_is_no_part_of_a_name_asks_for_nothing(uid: str) -> None:
    """Somebody may have set any uid by hand."""
    kube = MemoryKube()
    logs = SecretKeptLogs(replace(Settings(), sftp_namespace=NAMESPACE), kube)
    assert logs.read(uid) is None
    logs.remove(uid)
    assert kube.asked == []
