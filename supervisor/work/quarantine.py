"""Jobs and handlers that kill their children again and again: refused for a while.  No clock: callers tell the time.

A crash loop eats the pool; refusing quickly leaves the children to other jobs.
"""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.job import Failed, Job

DEATHS = 3
"""Children killed in a row."""
PERIOD = 600.0
"""Seconds of refusal."""
REMEMBERED = 10_000
"""Jobs and handlers whose deaths are remembered at most; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True)
class _Record:
    deaths: int
    last_at: float


class Quarantine:
    """Counts the children in a row that each job, and each handler, has killed."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def refusal(self, job: Job, now: float) -> Failed | None:
        """Why this job is not run; None when it is."""
        for key, what in _keys(job).items() if self._records else ():
            record = self._records.get(key)
            if record is not None and record.deaths >= DEATHS and now < record.last_at + PERIOD:
                wait = record.last_at + PERIOD - now
                reason = f"{what} killed its child {record.deaths} times in a row; it is refused for {wait:.0f} s more"
                return Failed("Quarantined", reason)
        return None

    def died(self, job: Job, now: float) -> None:
        """A child died of this job."""
        for key in _keys(job):
            deaths = self._records.pop(key).deaths if key in self._records else 0
            self._records[key] = _Record(deaths + 1, now)
        while len(self._records) > REMEMBERED:
            del self._records[next(iter(self._records))]

    def survived(self, job: Job) -> None:
        """A child came through this job: the count begins anew."""
        for key in _keys(job) if self._records else ():
            self._records.pop(key, None)

    def refused(self, now: float) -> list[str]:
        """The jobs and handlers that are refused now, for people to read."""
        return [
            key for key, record in self._records.items() if record.deaths >= DEATHS and now < record.last_at + PERIOD
        ]


def _keys(job: Job) -> dict[str, str]:
    return {f"job {job.job_id}": "this job", f"handler {job.action}": f"the handler of {job.action!r}"}
