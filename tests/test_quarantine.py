"""Jobs and handlers that kill their children again and again are refused for a while."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from supervisor.job import Job
from supervisor.work.quarantine import DEATHS, PERIOD, REMEMBERED, Quarantine
from tests.process_world import a_job

NOW = 1000.0


def job_of(action: str, job_id: str = "job_1") -> Job:
    return replace(a_job(action), job_id=job_id)


@pytest.fixture
def quarantine() -> Quarantine:
    return Quarantine()


def kill(quarantine: Quarantine, *jobs: Job, at: float = NOW) -> None:
    for job in jobs:
        quarantine.died(job, at)


def test_what_has_killed_nothing_is_run(quarantine: Quarantine) -> None:
    assert quarantine.refusal(job_of("a"), NOW) is None
    assert quarantine.refused(NOW) == []


def test_a_job_is_refused_after_so_many_deaths_whichever_handler_it_has(quarantine: Quarantine) -> None:
    kill(quarantine, *[job_of(action) for action in "abcdef"[: DEATHS - 1]])
    assert quarantine.refusal(job_of("x"), NOW) is None
    kill(quarantine, job_of("y"))

    refusal = quarantine.refusal(job_of("x"), NOW)

    assert refusal is not None
    assert refusal.error_type == "Quarantined"
    assert refusal.message.startswith(f"this job killed its child {DEATHS} times in a row")
    assert quarantine.refused(NOW) == ["job job_1"]


def test_a_handler_is_refused_after_so_many_deaths_whatever_the_jobs(quarantine: Quarantine) -> None:
    kill(quarantine, *[job_of("a", f"job_{number}") for number in range(DEATHS)])

    refusal = quarantine.refusal(job_of("a", "another"), NOW)

    assert refusal is not None
    assert "the handler of 'a' killed its child" in refusal.message
    assert quarantine.refusal(job_of("b", "another"), NOW) is None
    assert quarantine.refused(NOW) == ["handler a"]


def test_it_is_over_after_its_period_and_the_next_death_begins_another(quarantine: Quarantine) -> None:
    job = job_of("a")
    kill(quarantine, *[job] * DEATHS)

    assert quarantine.refusal(job, NOW + PERIOD - 1) is not None
    assert quarantine.refusal(job, NOW + PERIOD) is None
    assert quarantine.refused(NOW + PERIOD) == []

    kill(quarantine, job, at=NOW + PERIOD)
    assert quarantine.refusal(job, NOW + PERIOD) is not None


def test_a_child_that_comes_through_clears_the_job_and_its_handler(quarantine: Quarantine) -> None:
    job = job_of("a")
    kill(quarantine, *[job] * (DEATHS - 1))

    quarantine.survived(job)
    kill(quarantine, *[job] * (DEATHS - 1))

    assert quarantine.refusal(job, NOW) is None


def test_the_oldest_are_forgotten_first(quarantine: Quarantine) -> None:
    kill(quarantine, *[job_of("first")] * DEATHS)
    kill(quarantine, *[job_of("a", f"job {number}") for number in range(REMEMBERED)])

    assert quarantine.refusal(job_of("first"), NOW) is None
