"""One decision about what is reported of an attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.job import Failed, Outcome, Succeeded
from supervisor.outcome import CANCELLED, MESSAGE_LIMIT, Stop, child_died, clipped, decide
from supervisor.process.exit import Exit

DONE = Succeeded(b"e30=")
BROKEN = Failed("ValueError", "no such page")
STOPPED = Failed("Cancelled", "the handler stopped when it was asked to")
DIED = Failed("ChildDied", "the process was killed by SIGKILL")
TIMEOUT = Failed("Timeout", "the handler ran longer than its timeout")
SHUTDOWN = Failed("WorkerShutdown", "the worker was shut down before the job was done")


@pytest.mark.parametrize(
    ("told", "cancelled", "stop", "reported"),
    [
        (DONE, False, None, DONE),
        (BROKEN, False, None, BROKEN),
        (DIED, False, None, DIED),
        # The handler may stop itself: that is its own failure.
        (STOPPED, False, None, STOPPED),
        # Once the server asked to stop, nothing else is ever reported.
        (DONE, True, None, CANCELLED),
        (BROKEN, True, None, CANCELLED),
        (STOPPED, True, None, CANCELLED),
        (DIED, True, None, CANCELLED),
        (DONE, True, Stop.TIMEOUT, CANCELLED),
        (STOPPED, True, Stop.SHUTDOWN, CANCELLED),
        # After a stop of ours, a handler that still succeeded has succeeded.
        (DONE, False, Stop.TIMEOUT, DONE),
        (DONE, False, Stop.SHUTDOWN, DONE),
        (STOPPED, False, Stop.TIMEOUT, TIMEOUT),
        (STOPPED, False, Stop.SHUTDOWN, SHUTDOWN),
        (DIED, False, Stop.TIMEOUT, TIMEOUT),
        (DIED, False, Stop.SHUTDOWN, SHUTDOWN),
        (
            BROKEN,
            False,
            Stop.TIMEOUT,
            Failed("Timeout", "the handler ran longer than its timeout; its cleanup failed: no such page"),
        ),
    ],
)
def test_what_is_reported(told: Outcome, cancelled: bool, stop: Stop | None, reported: Outcome) -> None:
    assert decide(told, cancelled=cancelled, stop=stop) == reported


def test_a_death_is_told_with_its_figures_and_the_last_output() -> None:
    how = Exit(code=0, signal=11, peak_memory=300 * 2**20, cpu=1.234)

    died = child_died("was killed by SIGSEGV", how, ["page 1", "page 2"])

    assert died == Failed(
        "ChildDied",
        "the process was killed by SIGSEGV (peak memory 300 MiB, 1.23 s of CPU)\nlast output:\npage 1\npage 2",
    )


def test_a_death_without_output_is_one_line() -> None:
    assert "\n" not in child_died("exited with code 3", Exit(3, 0, 0, 0.0), []).message


def test_a_short_message_is_left_alone() -> None:
    assert clipped("no such page") == "no such page"


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    message = clipped("begin " + "x" * 100_000 + " end")

    assert message.startswith("begin xxx")
    assert message.endswith("xxx end")
    assert "\n[...]\n" in message


@given(st.text(min_size=1, max_size=7), st.integers(1, MESSAGE_LIMIT))
def test_no_message_is_longer_than_the_limit_wherever_its_characters_are_cut(text: str, times: int) -> None:
    message = clipped(text * times)

    assert len(message.encode()) <= MESSAGE_LIMIT


def test_a_message_that_is_no_valid_text_can_still_be_sent() -> None:
    assert clipped("half a pair: \ud800") == "half a pair: \\ud800"


def test_a_stop_has_a_type_and_a_sentence() -> None:
    assert {stop.error_type for stop in Stop} == {"Timeout", "WorkerShutdown"}
    assert all(stop.message.islower() for stop in Stop)
