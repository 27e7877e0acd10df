"""Watches one attempt from outside, from its claim to the end of its story, and knows the promises.

It goes by what went over the wire and what lies on the disk, never by what the product says of itself.  A promise that
is broken is remembered, and told at the next step: raised on the spot, the product might catch it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.job import Directive, Event, Failed, Outcome, Succeeded
from supervisor.reporting.report import SUBSTITUTES
from tests.model_loop import Clock, VirtualLoop

TOLERANCE = 0.1
"""Seconds that a handler may run on after its lease is over."""
PROMPTLY = 0.1
"""Seconds beyond its grace after which a handler that is to be stopped must be dead."""
INSTANT = 1e-6
"""Seconds: what is due and what is done at one instant may differ by this."""


@dataclass
class Witness:
    loop: VirtualLoop
    clock: Clock
    time_to_live: float
    spool_after: float
    grace: float
    ends_by: float
    """When the handler has to be stopped at the latest, on the loop's clock."""
    is_on_disk: Callable[[], bool]
    has_copy: Callable[[], bool]
    """Whether the operator finds the outcome that the server has refused as such."""
    has_room: bool
    """Whether anything can be written to the disk."""

    handler_runs: bool = False
    attempt_runs: bool = True
    has_crashed: bool = False
    accepted: Outcome | None = None
    is_taken_away: bool = False
    emitted: list[Event] = field(default_factory=list)
    published: list[Event] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.began_at = self.loop.time()
        self._renewed_at = self.clock.boottime()
        self._answered_at: float | None = None
        self._learned = False
        self._was_refused = False
        self._was_refused_before_report = False
        self._report_began = False
        self._report_was_not_accepted = False
        self._cancelled_before_report = False
        self._limited_until: dict[tuple[str, bool], float] = {}
        self._is_rejected = False
        self._failed_by_itself: Failed | None = None

    @property
    def lease_ends_at(self) -> float:
        return self._renewed_at + self.time_to_live

    @property
    def has_answer(self) -> bool:
        return self._answered_at is not None

    @property
    def has_seen_cancel(self) -> bool:
        """Whether a heartbeat has told of it in time."""
        return self._cancelled_before_report

    @property
    def is_owed_nothing(self) -> bool:
        """Whether nothing is to be reported: nothing was told, or the server has it or does not want it."""
        return not self.has_answer or self.accepted is not None or self._was_refused

    def look(self) -> None:
        """Raise when a promise is broken; called at every step."""
        now = self.clock.boottime()
        if self.handler_runs and now > self.lease_ends_at + TOLERANCE and not self._just_resumed:
            self.broken.append(f"the handler runs {now - self.lease_ends_at:.2f} s after its lease")
        if self.handler_runs and self.loop.time() > self.ends_by + self.grace + PROMPTLY:
            self.broken.append("the handler runs though it was to be stopped")
        if not (self.is_owed_nothing or self.is_on_disk() or self.may_be_in_memory):
            self.broken.append("the outcome is neither reported nor on disk")
        assert not self.broken, self.broken

    @property
    def may_be_in_memory(self) -> bool:
        if self.has_crashed or not self.attempt_runs:
            return not self.has_room
        assert self._answered_at is not None
        is_early = self.loop.time() <= self.began_at + self.spool_after + INSTANT and not self._report_was_not_accepted
        is_being_written = self.loop.is_calling or self.loop.time() <= self._answered_at + INSTANT
        return is_early or is_being_written or not self.has_room

    @property
    def _just_resumed(self) -> bool:
        return self.clock.resumed_at > 0 and self.clock.running <= self.clock.resumed_at + INSTANT

    def look_back(self, said: set[str]) -> None:
        """Raise when a promise was broken in the end; `said` is what stands in the log."""
        if self._is_rejected and self.accepted is not None and self.has_room:
            assert self.has_copy(), "the outcome that was refused as such is gone"
        if said & {"completed", "failed", "outcome delivered from the spool"}:
            assert self.accepted is not None, "the log says that a report was accepted"
        if said & {"outcome rejected by the server and dropped from the spool"}:
            assert self.accepted is None, "the log says that a report was refused"

    def saw_crash(self) -> None:
        self.has_crashed = True
        self._limited_until.clear()
        if self.loop.is_calling or self.loop.time() <= self.ends_by + INSTANT:
            self._cancelled_before_report = False  # it came when there was no time to write it down
        self._was_refused_before_report = False  # what was refused is removed in the next step, which is not taken
        if not self.is_on_disk():
            self._answered_at = None  # it was in memory only, as it may be, and is lost

    def saw_failure_of_its_own(self, failed: Failed) -> None:
        """The handler has failed; nothing of ours had to stop it by then."""
        if self.loop.time() < self.ends_by - INSTANT:
            self._failed_by_itself = failed

    def saw_answer(self) -> None:
        self._answered_at = self.loop.time()

    def saw_renewal(self, sent_at: float, directive: Directive) -> None:
        self._renewed_at = max(self._renewed_at, sent_at)
        if directive is Directive.CANCEL and not self._report_began:
            self._cancelled_before_report = True
            self.ends_by = min(self.ends_by, self.loop.time())

    def saw_length(self, length: float | None) -> None:
        if length is not None and not self._learned:
            self.time_to_live = length
        self._learned = True

    def saw_refusal(self, call: str) -> None:
        if call in ("complete", "lookup"):
            self._was_refused = True
        elif not self._report_began:
            self._was_refused = self._was_refused_before_report = True

    def saw_rejection(self) -> None:
        self._is_rejected = True

    def saw_limit(self, call: str, wait: float) -> None:
        self._limited_until[call, _is_replay()] = self.loop.time() + wait

    def saw_no_acceptance(self) -> None:
        self._report_was_not_accepted = True

    def sends_heartbeat(self) -> None:
        self._sends("a heartbeat")

    def sends_lookup(self) -> None:
        if self._was_refused_before_report:
            self.broken.append("a lookup was sent after the lease was refused")

    def sends_events(self) -> None:
        self._sends("events")
        self._heeds_limit("events")
        if self._report_began:
            self.broken.append("events were sent after the report")

    def sends_complete(self, outcome: Outcome, refused_events: set[bytes]) -> None:
        self._heeds_limit("complete")
        is_replay = _is_replay()
        if not is_replay:
            self._sends("a report")
        if self._was_refused_before_report:
            self.broken.append("a report was sent after the lease was refused")
        if isinstance(outcome, Succeeded) and self._cancelled_before_report:
            self.broken.append("completed was sent after a cancel")
        if isinstance(outcome, Failed) and self._disowns_failure(outcome):
            self.broken.append(f"the handler's own failure was reported as {outcome.error_type}")
        if self.accepted not in (None, outcome):
            self.broken.append(f"{outcome} was sent after {self.accepted} had been accepted")
        if not (self._report_began or is_replay or self._cancelled_before_report):
            self._compare_events(refused_events)
        self._report_began = True

    def _disowns_failure(self, reported: Failed) -> bool:
        own = self._failed_by_itself
        if own is None or self._cancelled_before_report:
            return False
        return reported.error_type not in (own.error_type, *SUBSTITUTES)

    def _sends(self, what: str) -> None:
        if self._was_refused_before_report or self.clock.boottime() > self.lease_ends_at:
            self.broken.append(f"{what} was sent after the lease was over")

    def _heeds_limit(self, call: str) -> None:
        # The replay does not know what an attempt was told whose lease was lost while it waited.
        if self.loop.time() < self._limited_until.get((call, _is_replay()), 0.0) - INSTANT:
            self.broken.append(f"{call} was sent sooner than the server has asked for")

    def _compare_events(self, refused: set[bytes]) -> None:
        first_ones = list(dict.fromkeys(event.payload for event in self.published))
        taken = [event for event in self.emitted if event.payload not in refused]
        newest = [event for event in self.emitted if event.type == "progress"][-1:]
        # Any older progress may have gone out before there was a newer one.
        due = [
            each.payload for each in taken if each.type != "progress" or each in newest or each.payload in first_ones
        ]
        if first_ones != due:
            self.broken.append(f"the report follows the events {first_ones}, not {due}")


def _is_replay() -> bool:
    task = asyncio.current_task()
    return task is not None and task.get_name() == "replay"
