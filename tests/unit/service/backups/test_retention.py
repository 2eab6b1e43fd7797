"""Which backups go: single rules, and what must be true of all of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.backups.records import Backup, Before, Repository, ServerBackups
from service.backups.retention import Rules, going, is_full, makes_room, stored_bytes
from service.kube.times import stamp
from service.settings import Keep

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
RULES = Rules(Keep(last=2, hourly=0, daily=0, weekly=0), most=20, bytes=None, undo_days=7)


def backup(hours: float, number: int = 0, **fields: object) -> Backup:
    """A backup that was made so many hours ago."""
    at = stamp(NOW - timedelta(hours=hours))
    values = {"trigger": "schedule", "state": "done", "where": "store", "finished": at, "added_bytes": 1, **fields}
    return Backup(f"b-{number:020x}", at, **values)  # type: ignore[arg-type]


def server(*backups: Backup, **fields: object) -> ServerBackups:
    """A server with these backups, numbered in the order of their times."""
    ordered = sorted(backups, key=lambda each: each.created)
    numbered = tuple(replace(each, id=f"b-{number:020x}") for number, each in enumerate(ordered))
    return ServerBackups("uid-1", 1, "c1", backups=numbered, **fields)  # type: ignore[arg-type]


def gone(kept: ServerBackups, rules: Rules = RULES) -> list[int]:
    """The numbers of those that go."""
    return [int(each.id[2:], 16) for each in going(kept, rules, NOW)]


def test_the_newest_of_a_schedule_stay() -> None:
    assert gone(server(*(backup(hours) for hours in range(1, 6)))) == [0, 1, 2]


def test_hours_days_and_weeks_keep_the_newest_of_each() -> None:
    kept = server(backup(0.5), backup(0.9), backup(2), backup(26), backup(27), backup(24 * 9), backup(24 * 17))
    # Oldest first: two weeks ago, last week, two of yesterday, three of today.
    assert gone(kept, replace(RULES, keep=Keep(last=0, hourly=2, daily=0, weekly=0))) == [0, 1, 2, 3, 5]
    assert gone(kept, replace(RULES, keep=Keep(last=0, hourly=0, daily=2, weekly=0))) == [0, 1, 2, 4, 5]
    assert gone(kept, replace(RULES, keep=Keep(last=0, hourly=0, daily=0, weekly=2))) == [0, 2, 3, 4, 5]
    assert gone(kept, replace(RULES, keep=Keep(last=1, hourly=2, daily=2, weekly=3))) == [2, 5]


def test_manual_ones_stay_until_there_are_too_many_and_a_schedules_go_first() -> None:
    kept = server(*(backup(hours, trigger="manual") for hours in (2, 3, 4)), backup(5), backup(1))
    assert gone(kept) == []
    assert gone(kept, replace(RULES, most=4)) == [0]
    assert gone(kept, replace(RULES, most=3)) == [0, 1]
    assert gone(kept, replace(RULES, most=1)) == [0, 1, 2, 3]


def test_locked_ones_never_go_and_count() -> None:
    kept = server(*(backup(hours, trigger="manual", locked=True) for hours in (3, 4)), backup(1), backup(2))
    assert gone(kept, replace(RULES, most=3)) == [2]
    assert gone(kept, replace(RULES, most=1)) == [2]


def test_nothing_goes_while_one_is_under_way() -> None:
    kept = server(*(backup(hours) for hours in range(1, 6)), backup(0, state="running", finished=None))
    assert gone(kept) == []
    assert gone(server(*(backup(hours) for hours in range(1, 6)), backup(0, state="queued"))) == []


def test_suspicious_ones_push_no_good_one_out_and_three_stay() -> None:
    suspicious = [backup(hours, suspicious="empty") for hours in (1, 2, 3, 4, 5)]
    kept = server(*suspicious, backup(6), backup(7), backup(8, trigger="manual"))
    assert gone(kept, replace(RULES, most=3)) == [3, 4]
    assert gone(server(backup(9, suspicious="smaller", locked=True), *suspicious)) == [1, 2]


def test_accepted_ones_push_the_older_out() -> None:
    """A world that really became small: once its owner says so, its backups count as all others."""
    small = [backup(hours, suspicious="smaller") for hours in (1, 2)]
    old = [backup(hours) for hours in (3, 4)]
    assert gone(server(*small, *old)) == []
    accepted = [replace(each, accepted=True) for each in small]
    assert gone(server(*accepted, *old)) == [0, 1]
    assert gone(server(accepted[0], small[1], *old)) == [0]
    manual = [replace(each, trigger="manual") for each in (*accepted, *old)]
    assert gone(server(*manual), replace(RULES, most=2)) == [0, 1]


def test_failed_ones_are_shown_for_a_week_and_five_at_most() -> None:
    assert gone(server(backup(24 * 7 + 1, state="failed"), backup(24 * 7 - 1, state="failed"))) == [0]
    assert gone(server(*(backup(hours, state="failed") for hours in range(7)))) == [0, 1]
    assert gone(server(*(backup(hours, state="cancelled") for hours in range(7)))) == [0, 1]


def test_the_world_of_before_a_restore_stays_as_long_as_it_can_be_had_back() -> None:
    own = [backup(24 * 20, trigger="manual")]
    old = backup(24 * 9, trigger="before-restore")
    assert gone(server(*own, backup(24 * 7.5, trigger="before-restore"))) == []
    assert gone(server(*own, old)) == [1]
    before = Before("op-1", old.created, "backup", f"b-{1:020x}")
    assert gone(server(*own, old, befores=(before,))) == []


def test_the_world_of_before_a_restore_does_not_replace_a_good_one() -> None:
    kept = server(backup(3), backup(1, trigger="before-restore"), backup(2, trigger="clone"))
    assert gone(kept, replace(RULES, keep=Keep(0, 0, 0, 0), most=1)) == []


def test_a_backup_that_was_made_to_clone_goes_after_a_day() -> None:
    kept = server(backup(50, trigger="clone"), backup(20, trigger="clone"), backup(60, trigger="manual"))
    assert gone(kept) == [1]


def test_too_much_in_the_store_goes_one_by_one() -> None:
    repository = Repository(pruned_at=stamp(NOW - timedelta(hours=4)), stored_bytes=90)
    manual = [backup(hours, trigger="manual", added_bytes=10) for hours in (1, 3, 5, 6)]
    kept = server(*manual, backup(2, added_bytes=10), repository=repository)
    assert stored_bytes(kept) == 120
    assert gone(kept, replace(RULES, bytes=120)) == []
    # The schedule's first, and then it is measured again.
    assert gone(kept, replace(RULES, bytes=20)) == [3]
    going_already = kept.with_backup(replace(kept.backups[3], state="deleting"))
    assert gone(going_already, replace(RULES, bytes=20)) == []
    unpruned = replace(kept, repository=replace(repository, unlisted=("a" * 64,)))
    assert gone(unpruned, replace(RULES, bytes=20)) == []


def test_what_is_stored_before_the_first_prune() -> None:
    assert stored_bytes(server()) is None
    assert stored_bytes(server(backup(2, added_bytes=7), backup(1, added_bytes=None), backup(1, where="node"))) == 7
    assert stored_bytes(server(backup(2), repository=Repository(pruned_at=stamp(NOW)))) is None


def test_a_server_is_full_only_of_locked_ones() -> None:
    locked = [backup(hours, locked=True) for hours in (1, 2)]
    bounded = replace(RULES, most=2)
    assert is_full(server(*locked), bounded)
    assert not is_full(server(*locked), RULES)
    assert not is_full(server(*locked, backup(3)), bounded)
    assert not is_full(server(*locked, backup(3, state="deleting")), bounded)
    assert is_full(server(*locked), replace(RULES, bytes=1))
    assert not is_full(server(*locked), replace(RULES, bytes=2))


def test_room_for_a_snapshot_is_made_by_the_oldest_on_the_node() -> None:
    node: dict[str, Any] = {"where": "node", "trigger": "manual"}
    kept = server(
        backup(9), backup(4, locked=True, **node), backup(3, **node), backup(2, **node), backup(0, state="running")
    )
    assert makes_room(kept, RULES, NOW) == kept.backups[2]
    assert makes_room(server(backup(2, **node), backup(0, state="running")), RULES, NOW) is None


# -- what must always be true ---------------------------------------------------------------------------------

_backups = st.builds(
    backup,
    st.integers(0, 24 * 60),
    trigger=st.sampled_from(["manual", "schedule", "before-restore", "clone"]),
    state=st.sampled_from(["done"] * 6 + ["failed", "cancelled", "deleting"]),
    locked=st.booleans(),
    where=st.sampled_from(["store", "node"]),
    suspicious=st.sampled_from([None, None, None, "empty", "smaller", "incomplete"]),
    accepted=st.booleans(),
    added_bytes=st.integers(0, 100),
)
_servers = st.lists(_backups, max_size=30).map(lambda backups: server(*backups))
_counts = st.integers(0, 4)
_rules = st.builds(
    Rules,
    st.builds(Keep, _counts, _counts, _counts, _counts),
    most=st.integers(1, 10),
    bytes=st.one_of(st.none(), st.integers(0, 500)),
    undo_days=st.integers(0, 10),
)


@given(_servers, _rules)
@settings(max_examples=400, deadline=None)
def test_what_must_stay_stays(kept: ServerBackups, rules: Rules) -> None:
    """Locked ones, the last good one, good ones without a newer good one; and the newest suspicious ones by number."""
    leaving = going(kept, rules, NOW)
    rest = [each for each in kept.backups if each not in leaving]
    assert all(each.not_made or (each.state == "done" and not each.locked) for each in leaving)
    good, good_left = ([each for each in some if each.good] for some in (kept.backups, rest))
    assert bool(good_left) == bool(good)
    for each in leaving:
        if each.good and each.trigger in ("manual", "schedule"):
            assert any(other.good and other.created >= each.created and other is not each for other in rest)


@given(_servers, _rules, st.lists(_backups, max_size=5))
@settings(max_examples=200, deadline=None)
def test_suspicious_ones_never_push_a_good_one_out(kept: ServerBackups, rules: Rules, more: list[Backup]) -> None:
    rules = replace(rules, bytes=None)
    odd = [replace(each, locked=False, trigger="manual", suspicious="smaller", accepted=False) for each in more]
    good = {each.created for each in going(kept, rules, NOW) if each.good}
    after = server(*kept.backups, *odd)
    assert {each.created for each in going(after, rules, NOW) if each.good} == good


@given(_servers, _rules, st.sampled_from(["queued", "running"]))
@settings(max_examples=100, deadline=None)
def test_nothing_goes_while_one_is_unfinished(kept: ServerBackups, rules: Rules, state: str) -> None:
    assert going(server(*kept.backups, backup(0, state=state, finished=None)), rules, NOW) == []


@given(_servers, _rules)
@settings(max_examples=200, deadline=None)
def test_it_settles(kept: ServerBackups, rules: Rules) -> None:
    """When those that go are gone, nothing goes for the same reason; and the bounds hold as far as they can."""
    rules = replace(rules, bytes=None)
    rest = kept
    for each in going(kept, rules, NOW):
        rest = rest.without(each.id)
    assert going(rest, rules, NOW) == []
    unlocked = [
        each for each in rest.backups if each.good and not each.locked and each.trigger in ("manual", "schedule")
    ]
    locked = [
        each for each in rest.backups if each.state == "done" and each.locked and each.trigger in ("manual", "schedule")
    ]
    assert len(unlocked) + len(locked) <= max(rules.most, len(locked) + 1)
