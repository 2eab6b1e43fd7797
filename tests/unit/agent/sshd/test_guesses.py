"""Password guessing is slowed down for the attacked server, and for no other."""

from __future__ import annotations

from disk_agent.sshd.guesses import Guesses


def test_after_a_burst_guesses_are_allowed_slowly() -> None:
    guesses = Guesses(burst=3, seconds_per_guess=10)
    assert [guesses.failed("7", now) for now in (0.0, 0.0, 0.0)] == [False, False, True]
    assert guesses.slowed(0.0) == {"7"}
    assert guesses.next_opening(4.0) == 6.0
    assert guesses.slowed(9.9) == {"7"}
    assert guesses.slowed(10.0) == frozenset()
    assert guesses.failed("7", 10.0)


def test_guesses_while_closed_do_not_keep_the_customer_out_longer() -> None:
    guesses = Guesses(burst=2, seconds_per_guess=10)
    for now in (0.0, 0.0, 1.0, 5.0, 9.0):
        guesses.failed("7", now)
    assert guesses.slowed(10.0) == frozenset()


def test_refusals_before_sshd_learns_of_the_opening_do_not_count() -> None:
    """A customer who keeps trying gets in as soon as passwords open again."""
    guesses = Guesses(burst=1, seconds_per_guess=10)
    assert guesses.failed("7", 0.0)
    guesses.applied(guesses.slowed(0.0))
    assert guesses.slowed(10.0) == frozenset()
    assert not guesses.failed("7", 10.1)
    assert guesses.slowed(10.1) == frozenset()
    guesses.applied(guesses.slowed(10.1))
    assert guesses.failed("7", 10.2)


def test_other_servers_are_not_slowed() -> None:
    guesses = Guesses(burst=1, seconds_per_guess=10)
    assert guesses.failed("7", 0.0)
    assert guesses.slowed(0.0) == {"7"}
    assert guesses.next_opening(100.0) is None
