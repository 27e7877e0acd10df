"""Which reason to stop a job counts."""

from __future__ import annotations

from supervisor.outcome import CANCELLED, SHUTDOWN, timed_out
from supervisor.stopping import Stopping

LATE = timed_out(10.0)


def test_the_first_reason_counts() -> None:
    stopping = Stopping()

    assert stopping.takes(LATE, has_ended=False)
    assert not stopping.takes(SHUTDOWN, has_ended=False)
    assert stopping.why is LATE


def test_a_cancel_counts_before_any_other_reason_and_only_once() -> None:
    stopping = Stopping()
    stopping.takes(LATE, has_ended=False)

    assert stopping.takes(CANCELLED, has_ended=False)
    assert not stopping.takes(CANCELLED, has_ended=False)
    assert not stopping.takes(SHUTDOWN, has_ended=False)
    assert stopping.why is CANCELLED


def test_how_a_handler_ended_by_itself_is_changed_by_a_cancel_alone() -> None:
    stopping = Stopping()

    assert not stopping.takes(LATE, has_ended=True)
    assert not stopping.takes(SHUTDOWN, has_ended=True)
    assert stopping.why is None
    assert stopping.takes(CANCELLED, has_ended=True)
