"""Jobs and handlers that kill their children again and again.  No clock: callers pass the time.

A job is not run for a while.  A handler is left out of the claims, so that other workers get its jobs; after a pause
one job is claimed for it as a trial.  Each trial that fails doubles the pause.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from supervisor.job import Failed, Job

MAX_CRASHES = 3
"""Children killed in a row."""
QUARANTINE_TIME = 600.0
"""Seconds for which a job is not run."""
FIRST_PAUSE = 30.0
"""Seconds until the first trial of a handler."""
MAX_PAUSE = 600.0
"""Seconds between two trials of a handler, at most."""
MAX_RECORDS = 10_000
"""Jobs, and handlers, whose deaths are remembered at most; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True)
class _Record:
    """How many children in a row; `pause` and `ends_at` are set from the death on that began the quarantine."""

    deaths: int
    pause: float = 0.0
    ends_at: float = 0.0

    @property
    def is_quarantined(self) -> bool:
        return self.deaths >= MAX_CRASHES


class Quarantine:
    """Counts the children in a row that each job, and each handler, has killed."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Record] = {}
        self._handlers: dict[str, _Record] = {}

    def rejection_for(self, job: Job, now: float) -> Failed | None:
        """Why this job is not run; None when it is.  A job of a quarantined handler is its trial, or came too late."""
        record = self._jobs.get(job.job_id) if self._jobs else None
        if record is None or not record.is_quarantined or now >= record.ends_at:
            return None
        reason = f"this job killed its child {record.deaths} times in a row"
        return Failed("Quarantined", f"{reason}; it is refused for {record.ends_at - now:.0f} s more")

    def record_crash(self, job: Job, now: float) -> float | None:
        """Note that a child died of this job; return the seconds until a trial when that begins a pause."""
        before = self._handlers.get(job.action)
        handler = _after_death_of_handler(before, now)
        _remember(self._jobs, job.job_id, _after_death_of_job(self._jobs.get(job.job_id), now))
        _remember(self._handlers, job.action, handler)
        has_begun = handler.ends_at != (0.0 if before is None else before.ends_at)
        return handler.pause if has_begun else None

    def record_success(self, job: Job) -> bool:
        """Note that a child came through this job: the count begins anew.  Return whether that ends a quarantine."""
        if not self._jobs and not self._handlers:
            return False
        self._jobs.pop(job.job_id, None)
        record = self._handlers.pop(job.action, None)
        return record is not None and record.is_quarantined

    def limits(self, now: float) -> dict[str, int]:
        """How many jobs of a quarantined handler may be claimed: none during its pause, then one, its trial."""
        if not self._handlers:
            return {}
        return {
            action: int(now >= record.ends_at) for action, record in self._handlers.items() if record.is_quarantined
        }

    def next_trial_in(self, actions: Collection[str], now: float) -> float | None:
        """Seconds until the first of these handlers may have a trial; None when none of them waits for one."""
        resting = [action for action, limit in self.limits(now).items() if not limit and action in actions]
        return min((self._handlers[action].ends_at - now for action in resting), default=None)

    def actions(self) -> tuple[str, ...]:
        """The handlers that are quarantined now."""
        return tuple(action for action, record in self._handlers.items() if record.is_quarantined)

    def active(self, now: float) -> list[str]:
        """The jobs and handlers that are quarantined now, for people to read."""
        jobs = (job for job, record in self._jobs.items() if record.is_quarantined and now < record.ends_at)
        return [*(f"handler {action}" for action in self.actions()), *(f"job {job}" for job in jobs)]


def _after_death_of_job(record: _Record | None, now: float) -> _Record:
    deaths = record.deaths + 1 if record is not None else 1
    return _Record(deaths, QUARANTINE_TIME, now + QUARANTINE_TIME)


def _after_death_of_handler(record: _Record | None, now: float) -> _Record:
    """The next record; what dies during the pause was claimed before it and changes nothing."""
    deaths = record.deaths + 1 if record is not None else 1
    if record is None or not record.is_quarantined:
        return _Record(deaths) if deaths < MAX_CRASHES else _Record(deaths, FIRST_PAUSE, now + FIRST_PAUSE)
    if now < record.ends_at:
        return _Record(deaths, record.pause, record.ends_at)
    pause = min(2 * record.pause, MAX_PAUSE)
    return _Record(deaths, pause, now + pause)


def _remember(records: dict[str, _Record], key: str, record: _Record) -> None:
    """Keep the newest record last, and not too many of them."""
    records.pop(key, None)
    records[key] = record
    while len(records) > MAX_RECORDS:
        del records[next(iter(records))]
