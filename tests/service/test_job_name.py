"""Which of the running jobs the text of an operator names."""

from __future__ import annotations

import pytest

from supervisor.control.operator import CommandRejected
from supervisor.job import Job
from supervisor.service.job_name import job_named


def job(job_id: str, attempt: int = 1, run_id: str = "run_1") -> Job:
    return Job(job_id, run_id, "flow", "step", "resize", attempt, "default", b"", 1.0)


FIRST, SECOND = job("job_3bc5f9", 2), job("job_3bc5aa", run_id="run_2")
SHORT, SHARP = job("job_3bc5"), job("job_3bc5#2")
JOBS = [FIRST, SECOND, SHORT, SHARP]


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("job_3bc5f9", FIRST),
        ("job_3bc5f9#2", FIRST),  # as `status` shows it
        ("job_3bc5f", FIRST),
        ("job_3bc5", SHORT),  # a whole id, although others begin so
        ("job_3bc5#1", SHORT),
        ("job_3bc5#2", SHARP),  # an id may hold any character
    ],
)
def test_a_job_is_named_by_its_id_its_attempt_or_a_beginning(name: str, named: Job) -> None:
    assert job_named(name, JOBS) is named


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("job_9999", "no job 'job_9999' runs here"),
        ("job_3bc", "no job 'job_3bc' runs here"),  # too short to be meant
        ("", "no job '' runs here"),
        ("b_3bc5f9", "no job 'b_3bc5f9' runs here"),
        ("job_3bc5f9#1", "attempt 1 of job_3bc5f9 does not run here, but attempt 2 does"),
        ("run_2", "run_2 is a run, name one of its jobs that run here: job_3bc5aa"),
    ],
)
def test_what_names_no_job_is_refused_in_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(CommandRejected) as caught:
        job_named(name, JOBS)

    assert str(caught.value) == sentence


def test_a_beginning_of_several_jobs_names_them_all() -> None:
    with pytest.raises(CommandRejected) as caught:
        job_named("job_3bc5", [FIRST, SECOND])

    assert str(caught.value) == "several jobs that run here begin with 'job_3bc5': job_3bc5f9, job_3bc5aa"
