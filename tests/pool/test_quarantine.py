"""Jobs that kill their children again and again are not run; handlers that do so are left out of claims."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from supervisor.job import Job
from supervisor.pool.quarantine import FIRST_PAUSE, MAX_CRASHES, MAX_PAUSE, MAX_RECORDS, QUARANTINE_TIME, Quarantine
from tests.process_world import a_job

NOW = 1000.0


def job_of(action: str, job_id: str = "job_1") -> Job:
    return replace(a_job(action), job_id=job_id)


@pytest.fixture
def quarantine() -> Quarantine:
    return Quarantine()


def kill(quarantine: Quarantine, *jobs: Job, at: float = NOW) -> None:
    for job in jobs:
        quarantine.record_crash(job, at)


def crash(quarantine: Quarantine, action: str, times: int, at: float = NOW) -> list[float | None]:
    """Let so many jobs of one action kill their children; return what each made of it."""
    return [quarantine.record_crash(job_of(action, f"job_{number}"), at) for number in range(times)]


def test_what_has_killed_nothing_is_run(quarantine: Quarantine) -> None:
    assert quarantine.rejection_for(job_of("a"), NOW) is None
    assert quarantine.limits(NOW) == {}
    assert quarantine.active(NOW) == []


def test_a_job_is_refused_after_so_many_deaths_whichever_handler_it_has(quarantine: Quarantine) -> None:
    kill(quarantine, *[job_of(action) for action in "abcdef"[: MAX_CRASHES - 1]])
    assert quarantine.rejection_for(job_of("x"), NOW) is None
    kill(quarantine, job_of("y"))

    refusal = quarantine.rejection_for(job_of("x"), NOW)

    assert refusal is not None
    assert refusal.error_type == "Quarantined"
    assert refusal.message.startswith(f"this job killed its child {MAX_CRASHES} times in a row")
    assert quarantine.active(NOW) == ["job job_1"]


def test_a_refused_job_is_run_again_after_the_period_and_its_next_death_begins_another(quarantine: Quarantine) -> None:
    kill(quarantine, *[job_of(action) for action in "abc"])

    assert quarantine.rejection_for(job_of("a"), NOW + QUARANTINE_TIME - 1) is not None
    assert quarantine.rejection_for(job_of("a"), NOW + QUARANTINE_TIME) is None
    assert quarantine.active(NOW + QUARANTINE_TIME) == []

    kill(quarantine, job_of("d"), at=NOW + QUARANTINE_TIME)
    assert quarantine.rejection_for(job_of("a"), NOW + QUARANTINE_TIME) is not None


def test_a_handler_is_left_out_after_so_many_deaths_and_its_jobs_are_not_refused(quarantine: Quarantine) -> None:
    pauses = crash(quarantine, "a", MAX_CRASHES)

    assert pauses == [*[None] * (MAX_CRASHES - 1), FIRST_PAUSE]
    assert quarantine.limits(NOW) == {"a": 0}
    assert quarantine.actions() == ("a",)
    assert quarantine.active(NOW) == ["handler a"]
    assert quarantine.rejection_for(job_of("a", "another"), NOW) is None


def test_after_the_pause_one_job_is_its_trial(quarantine: Quarantine) -> None:
    crash(quarantine, "a", MAX_CRASHES)

    assert quarantine.next_trial_in(["a", "b"], NOW + 10) == FIRST_PAUSE - 10
    assert quarantine.next_trial_in(["b"], NOW) is None
    assert quarantine.limits(NOW + FIRST_PAUSE) == {"a": 1}
    assert quarantine.next_trial_in(["a"], NOW + FIRST_PAUSE) is None
    assert quarantine.actions() == ("a",)


def test_what_was_claimed_before_the_quarantine_changes_no_pause(quarantine: Quarantine) -> None:
    crash(quarantine, "a", MAX_CRASHES)

    assert crash(quarantine, "a", 20, at=NOW + 1) == [None] * 20
    assert quarantine.limits(NOW + FIRST_PAUSE) == {"a": 1}


def test_each_trial_that_fails_doubles_the_pause_up_to_a_limit(quarantine: Quarantine) -> None:
    now, pauses = NOW, crash(quarantine, "a", MAX_CRASHES)[-1:]
    for _ in range(8):
        now += pauses[-1] or 0.0
        pauses += crash(quarantine, "a", 1, at=now)

    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert set(pauses[5:]) == {MAX_PAUSE}


def test_a_child_that_comes_through_clears_the_job_and_its_handler(quarantine: Quarantine) -> None:
    job = job_of("a")
    kill(quarantine, *[job] * (MAX_CRASHES - 1))

    assert quarantine.record_success(job) is False
    kill(quarantine, *[job] * MAX_CRASHES)
    assert quarantine.record_success(job) is True

    assert quarantine.rejection_for(job, NOW) is None
    assert quarantine.limits(NOW) == {}


def test_the_oldest_are_forgotten_first(quarantine: Quarantine) -> None:
    kill(quarantine, *[job_of("first")] * MAX_CRASHES)
    kill(quarantine, *[job_of("a", f"job {number}") for number in range(MAX_RECORDS)])

    assert quarantine.rejection_for(job_of("first"), NOW) is None
