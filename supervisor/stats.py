"""What has happened since the start: counts, lengths of time, and the jobs that ended last.  Pure: no I/O, no clock.

Whoever does a thing writes it down here, in plain numbers, for a job must not cost more because somebody may look;
`control.metrics` and `status` read it when somebody does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from typing import Literal, get_args

from supervisor.status import Recent

ExitReason = Literal["recycle", "crash", "killed", "oom", "reload", "shutdown"]
"""Why a child ended: it had had enough, it died, we killed it, the kernel did for want of memory, there is newer code,
the program ends.
"""

FAST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for what takes milliseconds."""
JOB_BUCKETS = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
"""Bounds for what may take hours."""
MAX_RECENT = 50
"""Jobs that have ended and are still shown."""
MAX_ACTION_LABELS = 500
"""Handlers with numbers of their own; a server that hands out ever new actions must not fill the memory."""
OTHERS = "(others)"
UNKNOWN = "(unknown)"
"""Label of every action that no handler here answers to."""


class Histogram:
    """How often a length fell between which bounds, and the sum of all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, length: float) -> None:
        self.counts[bisect_left(self.bounds, length)] += 1
        self.total += length


class Stats:
    """The one of a running program."""

    def __init__(self) -> None:
        self.claims: Counter[str] = Counter(job=0, empty=0, error=0)
        self.claim_seconds = Histogram((*FAST_BUCKETS, 20.0, 30.0))
        self.claim_error: str | None = None
        """What was wrong with the last claim; None since one was answered as it should be."""
        self.claimed_at: float | None = None
        """When a claim was last made; this and the two below on the clock of those who write here."""
        self.answered_at: float | None = None
        self.got_job_at: float | None = None
        self.jobs: Counter[tuple[str, str]] = Counter()
        """By handler and outcome (see `outcome.label`)."""
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
        """A claim came back, with a job or without; `fault` is what is wrong with the answer all the same."""
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
        """A job ended; `is_known` when a handler here answers to its action."""
        action = ended.action if is_known else UNKNOWN
        if action not in self.job_seconds:
            if len(self.job_seconds) >= MAX_ACTION_LABELS:
                action = OTHERS
            self.job_seconds.setdefault(action, Histogram(JOB_BUCKETS))
        self.jobs[action, ended.outcome] += 1
        self.job_seconds[action].observe(ended.seconds)
        self.recent.append(ended)

    def record_heartbeat(self, result: str, *, seconds: float, slack: float) -> None:
        """A heartbeat took `seconds`, and `slack` was left of its lease when it was sent."""
        self.heartbeats[result] += 1
        self.heartbeat_seconds.observe(seconds)
        self.lease_slack.observe(slack)
