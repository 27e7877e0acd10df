"""The lease on one attempt.  No I/O and no clock: callers say what time it is.

Times are seconds on a clock that counts suspended time too (CLOCK_BOOTTIME).  A renewal counts from the moment it was
*sent*: the server may have received it then, and its clock of the lease runs from there.
"""

from __future__ import annotations

import enum
import math
from functools import lru_cache

import msgspec

from supervisor.concurrency.backoff import Backoff
from supervisor.job import Directive

BEAT_OVERDUE_TIME = 1.0
"""Seconds by which a busy machine may delay a heartbeat."""


class LeaseLost(Exception):
    """The attempt is not ours any more: its child is killed and nothing is reported.  Caught by the slot."""


class LeaseState(enum.StrEnum):
    HELD = "held"
    CANCELLING = "cancelling"
    REPORTING = "reporting"
    RELEASED = "released"
    LOST = "lost"


class LeaseEvent(enum.StrEnum):
    """An event that may change the state of a lease."""

    RENEWED = "beat accepted"
    CANCELLED = "cancel asked"
    REFUSED = "beat refused"
    REPORT_BEGINS = "report begins"
    REPORT_ACCEPTED = "report accepted"
    REPORT_REFUSED = "report refused"
    SILENT = "silent past its time-to-live"


_LIVE = {
    LeaseEvent.RENEWED: None,  # stays where it is
    LeaseEvent.CANCELLED: LeaseState.CANCELLING,
    LeaseEvent.REFUSED: LeaseState.LOST,
    LeaseEvent.REPORT_BEGINS: LeaseState.REPORTING,
    LeaseEvent.SILENT: LeaseState.LOST,
}
# An event that is missing here cannot happen, and raises; a lost lease answers each event with `LeaseLost`.
_NEXT: dict[LeaseState, dict[LeaseEvent, LeaseState | None]] = {
    LeaseState.HELD: _LIVE,
    LeaseState.CANCELLING: _LIVE,
    LeaseState.REPORTING: {
        LeaseEvent.RENEWED: None,
        LeaseEvent.CANCELLED: None,  # too late: the outcome is being sent
        LeaseEvent.REFUSED: None,  # not decisive: this attempt may just have completed the job
        LeaseEvent.REPORT_BEGINS: None,
        LeaseEvent.REPORT_ACCEPTED: LeaseState.RELEASED,
        LeaseEvent.REPORT_REFUSED: LeaseState.LOST,
        LeaseEvent.SILENT: LeaseState.LOST,
    },
    LeaseState.RELEASED: {},
}


class LeaseTerms(msgspec.Struct, frozen=True):
    """The interval of heartbeats, and the time for which a renewal lasts; both in seconds."""

    interval: float
    time_to_live: float
    is_guessed: bool = False
    """True if the server has not sent the time-to-live; a look-up of the job may return it."""
    survives_silence: bool = False
    """True for idempotent handlers: silence never ends the lease, so that the handler may run twice at once."""

    @staticmethod
    @lru_cache(maxsize=256)  # most jobs have the same terms
    def of(
        server_interval: float,
        *,
        time_to_live: float | None,
        longest_interval: float | None,
        endures_silence: bool = False,
    ) -> LeaseTerms:
        """The server's interval, tightened to `longest_interval`; a time-to-live of three of the server's own.

        Three beats fit in a time-to-live that is given, too: otherwise a lease would be over before its first one.
        """
        lives = time_to_live or 3 * server_interval
        interval = min(server_interval, longest_interval or math.inf, lives / 3)
        return LeaseTerms(interval, lives, is_guessed=time_to_live is None, survives_silence=endures_silence)

    def with_length(self, time_to_live: float | None) -> LeaseTerms:
        """Return these terms with the time-to-live that the server returned, or None if it returned none."""
        lives = self.time_to_live if time_to_live is None else time_to_live
        return LeaseTerms(min(self.interval, lives / 3), lives, survives_silence=self.survives_silence)

    @property
    def max_silence(self) -> float:
        """Seconds without an accepted heartbeat after which the lease is lost."""
        return math.inf if self.survives_silence else self.time_to_live


class Lease:
    """The right to run one attempt, from its claim until it is released or lost."""

    def __init__(
        self, terms: LeaseTerms, *, claimed_at: float, head_start: float = 0.0, backoff: Backoff | None = None
    ) -> None:
        """`head_start` intervals are taken off the first heartbeat: jobs claimed together do not beat together."""
        self.state = LeaseState.HELD
        self._lost_by: LeaseEvent | None = None
        self._terms = terms
        self._renewed_at = claimed_at
        self._next_beat_at = claimed_at + terms.interval * (1 - head_start)
        self._retry = backoff  # created after a heartbeat without an answer

    def __repr__(self) -> str:
        return f"<Lease {self.state.value} until {self.expires_at:.3f}>"

    @property
    def expires_at(self) -> float:
        """Time at which silence ends the lease; infinite if it survives silence."""
        return self._renewed_at + self._terms.max_silence

    @property
    def renewed_at(self) -> float:
        """Time at which the last accepted heartbeat, or the claim, was sent."""
        return self._renewed_at

    @property
    def length(self) -> float:
        """Seconds for which a renewal lasts."""
        return self._terms.max_silence

    def is_overdue(self, now: float) -> bool:
        """True if a due heartbeat was not sent; a heartbeat without an answer ends within an interval."""
        return now > self._next_beat_at + 2 * self._terms.interval + BEAT_OVERDUE_TIME

    @property
    def length_is_guessed(self) -> bool:
        return self._terms.is_guessed

    @property
    def next_beat_at(self) -> float:
        """Time at which the next heartbeat is due."""
        return self._next_beat_at

    @property
    def is_refused(self) -> bool:
        """True if the server refused the fence; for the server, a lease lost by silence may still be valid."""
        return self._lost_by in (LeaseEvent.REFUSED, LeaseEvent.REPORT_REFUSED)

    @property
    def is_lost(self) -> bool:
        return self.state is LeaseState.LOST

    @property
    def is_released(self) -> bool:
        return self.state is LeaseState.RELEASED

    @property
    def is_cancelling(self) -> bool:
        return self.state is LeaseState.CANCELLING

    def set_length(self, time_to_live: float | None) -> None:
        """Adopt the time-to-live that the server returned, or None if it returned none."""
        self._terms = self._terms.with_length(time_to_live)
        self._next_beat_at = min(self._next_beat_at, self._renewed_at + self._terms.interval)

    def beat_timeout(self, now: float) -> float:
        """Return the timeout of a heartbeat sent `now`: less than the interval, and within the lease."""
        return max(0.0, min(0.9 * self._terms.interval, self.expires_at - now))

    def check(self, now: float) -> None:
        """Raise `LeaseLost` if silence has lasted for the time-to-live, or the lease is lost already."""
        if self.state is LeaseState.LOST:  # another task of the attempt noticed it in the same turn of the loop
            raise LeaseLost("the lease was lost before")
        if now >= self.expires_at and self.state is not LeaseState.RELEASED:
            self._turn(LeaseEvent.SILENT)
            raise LeaseLost(f"no heartbeat was accepted for {self._terms.time_to_live:g} s")

    def renewed(self, directive: Directive, *, sent_at: float) -> None:
        """Renew the lease after a heartbeat, sent at `sent_at`, that the server accepted."""
        self._turn(LeaseEvent.RENEWED)
        if directive is Directive.CANCEL:
            self._turn(LeaseEvent.CANCELLED)
        self._renewed_at = max(self._renewed_at, sent_at)
        self._next_beat_at = sent_at + self._terms.interval
        if self._retry is not None:
            self._retry.reset()

    def renewal_failed(self, now: float, *, wait: float | None = None) -> None:
        """Schedule the next heartbeat after one that failed; `wait` is the pause that the server requests (429)."""
        if self._retry is None:  # the next one follows soon, within the lease
            self._retry = Backoff(self._terms.interval / 8, self._terms.interval / 4)
        pause = self._retry.next() if wait is None else min(wait, self._longest_wait(now))
        self._next_beat_at = now + max(pause, 0.01)

    def _longest_wait(self, now: float) -> float:
        """How long a beat may be put off: until half of what is left, also where silence is endured.

        For the server gives the job away nevertheless, or wants it stopped.  When it may have done so already there is
        nothing to be in time for, and beats come as they do while all is well.
        """
        left = self._renewed_at + self._terms.time_to_live - now
        return left / 2 if left > 0 or not self._terms.survives_silence else self._terms.interval

    def renewal_refused(self, why: str) -> None:
        """Lose the lease, because the server calls the fence stale; raise `LeaseLost` unless a report is under way."""
        self._turn(LeaseEvent.REFUSED)
        if self.state is LeaseState.LOST:
            raise LeaseLost(why)

    def begin_report(self) -> None:
        self._turn(LeaseEvent.REPORT_BEGINS)

    def report_accepted(self) -> None:
        self._turn(LeaseEvent.REPORT_ACCEPTED)

    def report_refused(self, why: str) -> LeaseLost:
        """Lose the lease, because the server refused the report; return the exception to raise."""
        self._turn(LeaseEvent.REPORT_REFUSED)
        return LeaseLost(why)

    def _turn(self, told: LeaseEvent) -> None:
        if self.state is LeaseState.LOST:
            if told is LeaseEvent.REFUSED:
                self._lost_by = told  # silence ended it in the same turn of the loop, but the server's answer counts
            # Heartbeats, events and the report notice it at the same time; the log has the reason of the first one.
            raise LeaseLost(f"the lease was lost already, and was then told: {told.value}")
        try:
            self.state = _NEXT[self.state][told] or self.state
        except KeyError:
            raise RuntimeError(f"a lease that is {self.state.value} was told: {told.value}") from None
        if self.state is LeaseState.LOST:
            self._lost_by = told
