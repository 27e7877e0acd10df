"""One decision about what is reported of an attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.attempt.outcome import (
    CANCELLED,
    MAX_MESSAGE_BYTES,
    SHUTDOWN,
    OutcomeLabel,
    StopReason,
    clipped,
    decide,
    label_for,
    over_memory,
    timed_out,
)
from supervisor.job import Failed, Outcome, Succeeded
from supervisor.linux.exit_status import ExitReport, ExitStatus, OomKill

DONE = Succeeded(b"e30=")
BROKEN = Failed("ValueError", "no such page")
STOPPED = Failed("Cancelled", "the handler stopped when it was asked to")
TIMEOUT = timed_out(600)
KILLED = ExitReport(
    ExitStatus(0, 9, 300 * 2**20, 1.234), "was killed by SIGKILL", 'File "resize.py", line 7 in scale', ["page 1"]
)


@pytest.mark.parametrize(
    ("told", "stop", "error_type"),
    [
        (DONE, None, None),
        (BROKEN, None, "ValueError"),
        (None, None, "ChildDied"),
        # The handler may stop itself: that is its own failure.
        (STOPPED, None, "Cancelled"),
        # Once the server asked to stop, nothing else is ever reported.
        (DONE, CANCELLED, "Cancelled"),
        (BROKEN, CANCELLED, "Cancelled"),
        (STOPPED, CANCELLED, "Cancelled"),
        (None, CANCELLED, "Cancelled"),
        # After a stop of ours, a handler that still succeeded has succeeded.
        (DONE, TIMEOUT, None),
        (DONE, SHUTDOWN, None),
        (STOPPED, TIMEOUT, "Timeout"),
        (STOPPED, SHUTDOWN, "WorkerShutdown"),
        (BROKEN, TIMEOUT, "Timeout"),
        (None, TIMEOUT, "Timeout"),
        (None, SHUTDOWN, "WorkerShutdown"),
        (None, over_memory(2**31, 2**30), "MemoryLimit"),
    ],
)
def test_what_is_reported(told: Outcome | None, stop: StopReason | None, error_type: str | None) -> None:
    reported = decide(told, stop=stop, ending=KILLED)

    if error_type is None:
        assert reported is told
    else:
        assert isinstance(reported, Failed)
        assert reported.error_type == error_type


def test_a_death_is_told_with_its_figures_its_stack_and_its_last_output() -> None:
    died = decide(None, stop=None, ending=KILLED)

    assert died == Failed(
        "ChildDied",
        "the process was killed by SIGKILL (peak memory of the process 300 MiB, 1.23 s of CPU)"
        '\n\nstack:\nFile "resize.py", line 7 in scale\n\nlast output:\npage 1',
    )


@pytest.mark.parametrize(
    ("starvation", "told"),
    [
        (
            OomKill(100 * 2**20, 100 * 2**20),
            ("MemoryLimit", "the job used more than its limit of 100 MiB (peak 100 MiB): killed by the kernel"),
        ),
        (
            OomKill(None, 300 * 2**20),
            (
                "OutOfMemory",
                "the host, or the unit of the supervisor, ran out of memory: the kernel killed the job (peak 300 MiB)",
            ),
        ),
        (
            OomKill(None, None),
            (
                "OutOfMemory",
                "the host, or the unit of the supervisor, ran out of memory: the kernel killed the job (peak unknown)",
            ),
        ),
    ],
)
def test_a_death_for_want_of_memory_is_told_as_such(starvation: OomKill, told: tuple[str, str]) -> None:
    ending = replace(KILLED, oom_kill=starvation)

    reported = decide(None, stop=None, ending=ending)

    assert isinstance(reported, Failed)
    assert (reported.error_type, reported.message.partition("\n")[0]) == told
    assert "last output:\npage 1" in reported.message
    assert ending.is_at_limit == (reported.error_type == "MemoryLimit")


def test_a_stop_counts_for_more_than_what_happened_to_memory_meanwhile() -> None:
    starved = replace(KILLED, oom_kill=OomKill(2**30, 2**30))

    reported = decide(None, stop=CANCELLED, ending=starved)

    assert isinstance(reported, Failed)
    assert reported.error_type == "Cancelled"


@pytest.mark.parametrize(
    ("told", "how"),
    [
        (None, "it did not stop within its grace and was killed"),
        (STOPPED, "it stopped when it was asked to"),
        (BROKEN, "its cleanup failed with ValueError: no such page"),
    ],
)
def test_a_stop_says_how_the_handler_took_it(told: Outcome | None, how: str) -> None:
    reported = decide(told, stop=TIMEOUT, ending=KILLED)

    assert isinstance(reported, Failed)
    assert reported.message.startswith(f"the handler ran longer than its timeout of 10m; {how} (peak memory")
    assert 'File "resize.py", line 7 in scale' in reported.message


def test_a_death_without_output_and_stack_is_one_line() -> None:
    died = decide(None, stop=None, ending=ExitReport(ExitStatus(3, 0, 0, 0.0), "exited with code 3", "", []))

    assert isinstance(died, Failed)
    assert "\n" not in died.message


def test_an_endless_stack_and_output_do_not_push_out_the_reason() -> None:
    ending = ExitReport(ExitStatus(0, 9, 0, 0.0), "was killed by SIGKILL", "s" * 100_000, ["l" * 4096] * 20)

    died = decide(None, stop=None, ending=ending)

    assert isinstance(died, Failed)
    assert died.message.startswith("the process was killed by SIGKILL")
    assert len(died.message.encode()) <= MAX_MESSAGE_BYTES
    assert "[...]" not in died.message


def test_a_short_message_is_left_alone() -> None:
    assert clipped("no such page") == "no such page"


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    message = clipped("begin " + "x" * 100_000 + " end")

    assert message.startswith("begin xxx")
    assert message.endswith("xxx end")
    assert "\n[...]\n" in message


@given(st.text(min_size=1, max_size=7), st.integers(1, MAX_MESSAGE_BYTES))
def test_no_message_is_longer_than_the_limit_wherever_its_characters_are_cut(text: str, times: int) -> None:
    message = clipped(text * times)

    assert len(message.encode()) <= MAX_MESSAGE_BYTES


def test_a_message_that_is_no_valid_text_can_still_be_sent() -> None:
    assert clipped("half a pair: \ud800") == "half a pair: \\ud800"


STARVED = replace(KILLED, oom_kill=OomKill(2**30, 2**30))


@pytest.mark.parametrize(
    ("told", "stop", "ending", "label"),
    [
        (DONE, None, None, OutcomeLabel.COMPLETED),
        (BROKEN, None, None, OutcomeLabel.FAILED),
        (None, None, KILLED, OutcomeLabel.CRASHED),
        (None, None, STARVED, OutcomeLabel.MEMORY),
        (None, None, replace(KILLED, oom_kill=OomKill(None, None)), OutcomeLabel.MEMORY),
        (None, over_memory(2**31, 2**30), KILLED, OutcomeLabel.MEMORY),
        (None, TIMEOUT, KILLED, OutcomeLabel.TIMEOUT),
        (None, CANCELLED, STARVED, OutcomeLabel.CANCELLED),
        (DONE, CANCELLED, None, OutcomeLabel.CANCELLED),
        (None, SHUTDOWN, KILLED, OutcomeLabel.SHUTDOWN),
    ],
)
def test_the_word_for_it_tells_what_ended_the_job(
    told: Outcome | None, stop: StopReason | None, ending: ExitReport | None, label: OutcomeLabel
) -> None:
    reported = decide(told, stop=stop, ending=ending)

    assert label_for(reported, stop=stop, ending=ending, has_crashed=told is None and stop is None) == label
