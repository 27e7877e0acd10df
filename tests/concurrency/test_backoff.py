"""Waits double up to a bound, and no two workers wait equally long."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from supervisor.concurrency.backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0, jitter=lambda: 0.0)

    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_after_a_success_the_next_failure_is_the_first_again() -> None:
    backoff = Backoff(0.5, 3.0, jitter=lambda: 0.0)
    backoff.next()
    backoff.next()

    backoff.reset()

    assert backoff.next() == 0.5


def test_the_jitter_shortens_a_wait_by_up_to_a_half() -> None:
    jitter = itertools.cycle([0.0, 0.5, 1.0])
    backoff = Backoff(4.0, 4.0, jitter=lambda: next(jitter))

    assert [backoff.next() for _ in range(3)] == [4.0, 3.0, 2.0]


def test_two_workers_do_not_wait_equally_long() -> None:
    one, other = Backoff(1.0, 60.0), Backoff(1.0, 60.0)

    assert [one.next() for _ in range(5)] != [other.next() for _ in range(5)]


@given(st.floats(0.001, 10), st.floats(10, 600), st.integers(0, 10**9))
def test_a_wait_is_never_longer_than_the_longest_nor_shorter_than_half_the_first(
    first: float, longest: float, failures: int
) -> None:
    backoff = Backoff(first, longest)
    backoff.failures = failures

    assert first / 2 <= backoff.next() <= longest
