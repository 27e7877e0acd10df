"""Statistics since the start: counters, durations and recently ended jobs.  Pure: no I/O, no clock.

Each component records plain numbers here, so that a job costs no more than that.  `control.prometheus` and the status
read them on request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from typing import Literal, get_args

from supervisor.status import Recent

ExitReason = Literal["recycle", "crash", "killed", "oom", "reload", "shutdown"]
"""Why a child ended: its job or memory limit, its death, a kill by the parent, the kernel's out-of-memory killer, a
reload, or the shutdown of the program.
"""

FAST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Histogram bounds in seconds for short operations."""
JOB_BUCKETS = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
"""Histogram bounds in seconds for jobs."""
MAX_RECENT = 50
"""Limit of the list of ended jobs."""
MAX_ACTION_LABELS = 500
"""Limit of separately counted actions, so that a server with ever new actions cannot fill the memory."""
OTHERS = "(others)"
UNKNOWN = "(unknown)"
"""Label of all actions without a handler."""


class Histogram:
    """Counts of durations between bounds, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, length: float) -> None:
        self.counts[bisect_left(self.bounds, length)] += 1
        self.total += length


class Stats:
    """Statistics of the running program."""

    def __init__(self) -> None:
        self.claims: Counter[str] = Counter(job=0, empty=0, error=0)
        self.claim_seconds = Histogram((*FAST_BUCKETS, 20.0, 30.0))
        self.claim_error: str | None = None
        """Error of the last claim; None after a valid answer."""
        self.claimed_at: float | None = None
        """Time of the last claim.  All times here are on the clock of the pool."""
        self.answered_at: float | None = None
        self.got_job_at: float | None = None
        self.jobs: Counter[tuple[str, str]] = Counter()
        """Counts by action and outcome label (see `attempt.outcome`)."""
        self.job_start_seconds = Histogram(FAST_BUCKETS)
        self.job_seconds: dict[str, Histogram] = {}
        self.recent: deque[Recent] = deque(maxlen=MAX_RECENT)
        self.heartbeats: Counter[str] = Counter(accepted=0, refused=0, failed=0)
        self.heartbeat_seconds = Histogram(FAST_BUCKETS)
        self.lease_slack = Histogram((0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0))
        self.cancel_latency = Histogram(FAST_BUCKETS)
        self.kill_stages: Counter[str] = Counter(cooperative=0, term=0, kill=0)
        self.reports: Counter[str] = Counter(accepted=0, refused=0, unanswered=0)
        self.events_sent = 0
        self.events_dropped = 0
        self.log_bytes: Counter[str] = Counter(output=0, log=0)
        self.child_exits: Counter[str] = Counter(dict.fromkeys(get_args(ExitReason), 0))
        self.child_start_seconds = Histogram(FAST_BUCKETS)

    def claim_answered(self, now: float, *, asked_at: float, has_job: bool, fault: str | None = None) -> None:
        """Record an answer to a claim, with or without a job; `fault` describes an error in the answer."""
        self.claims["job" if has_job else "empty"] += 1
        self.claim_seconds.observe(now - asked_at)
        self.claim_error = fault
        self.answered_at = now
        if has_job:
            self.got_job_at = now

    def claim_failed(self, why: str) -> None:
        self.claims["error"] += 1
        self.claim_error = why

    def job_ended(self, ended: Recent, *, is_known: bool = True) -> None:
        """Record the end of a job; `is_known` is True if its action has a handler."""
        action = ended.action if is_known else UNKNOWN
        if action not in self.job_seconds:
            if len(self.job_seconds) >= MAX_ACTION_LABELS:
                action = OTHERS
            self.job_seconds.setdefault(action, Histogram(JOB_BUCKETS))
        self.jobs[action, ended.outcome] += 1
        self.job_seconds[action].observe(ended.seconds)
        self.recent.append(ended)

    def record_heartbeat(self, result: str, *, seconds: float, slack: float) -> None:
        """Record a heartbeat that took `seconds`; `slack` is the lease's remaining time when it was sent."""
        self.heartbeats[result] += 1
        self.heartbeat_seconds.observe(seconds)
        self.lease_slack.observe(slack)
