"""Guessing is slowed for the server it is aimed at, and for no other."""

from __future__ import annotations

from disk_agent.sshd.guesses import Guesses


def test_the_burst_is_free_and_then_a_try_drips_in() -> None:
    guesses = Guesses(burst=3, seconds_per_guess=10)
    assert [guesses.failed("7", now) for now in (0.0, 0.0, 0.0)] == [False, False, True]
    assert guesses.slowed(0.0) == {"7"}
    assert guesses.next_opening(4.0) == 6.0
    assert guesses.slowed(9.9) == {"7"}
    assert guesses.slowed(10.0) == frozenset()
    assert guesses.failed("7", 10.0)


def test_what_is_tried_while_closed_does_not_keep_the_customer_out_longer() -> None:
    guesses = Guesses(burst=2, seconds_per_guess=10)
    for now in (0.0, 0.0, 1.0, 5.0, 9.0):
        guesses.failed("7", now)
    assert guesses.slowed(10.0) == frozenset()


def test_what_is_refused_before_sshd_knows_of_the_opening_does_not_close_it_again() -> None:
    """A customer who tries all the time is let in at the first opening."""
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
