"""A burst at once, a rate for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.concurrency.token_bucket import TokenBucket


def test_a_burst_passes_and_no_more() -> None:
    bucket = TokenBucket(rate=1.0, burst=10.0, now=0.0)

    assert bucket.take(10, 0.0)
    assert not bucket.take(1, 0.0)


def test_what_was_taken_comes_back_at_the_rate() -> None:
    bucket = TokenBucket(rate=2.0, burst=10.0, now=0.0)
    bucket.take(10, 0.0)

    assert not bucket.take(4, 1.9)
    assert bucket.take(4, 2.0)


def test_a_debt_says_when_it_is_paid() -> None:
    bucket = TokenBucket(rate=5.0, burst=10.0, now=0.0)

    assert bucket.overdraw(10, 0.0) == 0.0
    assert bucket.overdraw(5, 0.0) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 20)), max_size=50))
def test_never_more_passes_than_the_burst_and_what_time_has_brought(steps: list[tuple[float, float]]) -> None:
    bucket = TokenBucket(rate=3.0, burst=10.0, now=0.0)
    now = passed = 0.0

    for pause, amount in steps:
        now += pause
        passed += amount if bucket.take(amount, now) else 0.0
        assert passed <= 10.0 + 3.0 * now + 1e-6
