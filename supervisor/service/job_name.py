"""Look-up of a running job by the name that an operator typed.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.control.operator import CommandRejected
from supervisor.job import Job

MIN_BEGINNING = 8
"""Characters of an id that name a job at least: all ids of a server may begin with the same word, as `job_`."""


def job_named(name: str, jobs: Sequence[Job]) -> Job:
    """Return the one of `jobs` with this id, JOB#ATTEMPT as `status` shows it, or beginning of an id.

    Raises `CommandRejected` if there is none, or more than one.
    """
    for job in jobs:
        if name in (job.job_id, f"{job.job_id}#{job.attempt}"):
            return job
    _refuse_other_attempt(name, jobs)
    _refuse_run(name, jobs)
    begun = [job for job in jobs if len(name) >= MIN_BEGINNING and job.job_id.startswith(name)]
    if len(begun) > 1:
        raise CommandRejected(f"several jobs that run here begin with {name!r}: {_listed(begun)}")
    if not begun:
        raise CommandRejected(f"no job {name!r} runs here")
    return begun[0]


def _refuse_other_attempt(name: str, jobs: Sequence[Job]) -> None:
    job_id, _, number = name.rpartition("#")
    for job in jobs:
        if job.job_id == job_id:
            raise CommandRejected(f"attempt {number} of {job_id} does not run here, but attempt {job.attempt} does")


def _refuse_run(name: str, jobs: Sequence[Job]) -> None:
    if of_run := [job for job in jobs if job.run_id == name]:
        raise CommandRejected(f"{name} is a run, name one of its jobs that run here: {_listed(of_run)}")


def _listed(jobs: Sequence[Job]) -> str:
    return ", ".join(job.job_id for job in jobs)
