"""Limit of concurrent long polls.  Runs in the parent.

One open poll is enough to notice the first job in an empty queue; while claims return jobs, every free slot may poll.
So 64 idle slots cost the server one connection, and 1,000 new jobs reach them in six round trips.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from supervisor.concurrency.backoff import Backoff
from supervisor.pool.claim_gate import BlockReason, ClaimGate


class PollWindow:
    """The number of polls that may be open, adapted to the results of the last polls."""

    def __init__(self) -> None:
        self.allowed = 1

    def found(self, most: int) -> None:
        """Double the number after a claim that returned a job, up to `most`."""
        self.allowed = min(most, 2 * self.allowed)

    def found_nothing(self) -> None:
        """Reduce the number by one after a claim that returned no job, or failed."""
        self.allowed = max(1, self.allowed - 1)


class PollLimiter:
    """Limits the number of concurrent long polls.

    Await `wait_available()`, then enter the limiter with `with` before the next await.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        """The number of slots, and so of polls at most."""
        self.gate = ClaimGate(self._admit)
        """Blocks all polls for a reason."""
        self._window = PollWindow()
        self._open = 0
        self._paused_until = 0.0
        self._trial: asyncio.TimerHandle | None = None  # opens one poll while the server refuses the key
        self._trial_delay = 0.0
        self._is_trial_due = False
        self._backoff = Backoff(0.2, 15.0)  # after polls that returned jobs which cannot run here
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._admitted: set[asyncio.Future[None]] = set()  # woken for a poll that they have not opened yet

    @property
    def open(self) -> int:
        """The number of open polls."""
        return self._open

    @property
    def is_stuck(self) -> bool:
        """True if a slot waits although a poll may be opened: a bug that the watchdog reports."""
        waits = any(not waiter.done() for waiter in self._waiting)
        return waits and self.gate.is_open and self._open + len(self._admitted) < self._window.allowed

    @property
    def is_available(self) -> bool:
        """True if one more poll may be opened."""
        return self._open < self._window.allowed if self.gate.is_open else self._may_try

    async def wait_available(self) -> None:
        """Wait until one more poll may be opened."""
        while not self.is_available:
            await self._change()

    def __enter__(self) -> None:
        """Count the caller's poll as open inside the block."""
        self._open += 1
        if not self.gate.is_open:
            self._is_trial_due = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open -= 1
        if not self.gate.is_open and self.gate.is_blocked_by(BlockReason.CREDENTIAL):
            self._plan_trial()
        if self._waiting:
            self._admit()

    def refuse(self, why: str, retry_in: float) -> None:
        """Block polls while the server refuses the key, except one trial poll in `retry_in` seconds."""
        self._trial_delay = retry_in
        self.gate.block(BlockReason.CREDENTIAL, why)
        self._plan_trial()

    def accept(self) -> None:
        """Unblock polls, because the server accepts the key again."""
        if self._trial is not None:
            self._trial.cancel()
        self._trial, self._is_trial_due = None, False
        self.gate.unblock(BlockReason.CREDENTIAL)

    @property
    def _may_try(self) -> bool:
        return self._is_trial_due and self.gate.allows_trial

    def _plan_trial(self) -> None:
        """Schedule the next trial poll.  A trial without an answer is followed by another one after the same delay."""
        if self._trial is None and not self._is_trial_due:
            self._trial = asyncio.get_running_loop().call_later(self._trial_delay, self._offer_trial)

    def _offer_trial(self) -> None:
        self._trial, self._is_trial_due = None, True
        self._admit()

    def pause(self, seconds: float, why: str) -> None:
        """Block new polls for `seconds`."""
        loop = asyncio.get_running_loop()
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        self.gate.block(BlockReason.SERVER, why)
        loop.call_at(self._paused_until, self._end_pause, self._paused_until)

    def found(self) -> None:
        """Note that the caller's poll returned a job."""
        if self._backoff.failures:
            self._backoff.reset()
        if self._window.allowed != self.slots:
            self._window.found(self.slots)
            self._admit()

    def found_nothing(self) -> None:
        """Note that the caller's poll returned no job, or failed."""
        self._window.found_nothing()

    def found_unrunnable(self, why: str) -> None:
        """Pause all polls, longer each time, because the caller's poll returned a job that cannot run here."""
        self.found_nothing()
        self.pause(self._backoff.next(), why)

    def _end_pause(self, until: float) -> None:
        # The deadline is compared, not the clock: a loop may call a little early.
        if until == self._paused_until:
            self._paused_until = 0.0
            self.gate.unblock(BlockReason.SERVER)

    async def _change(self) -> None:
        """Wait until the caller's poll may be opened, perhaps."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            self._admit()  # another waiter may take the turn of the cancelled one
            raise
        finally:
            self._admitted.discard(waiter)

    def _admit(self) -> None:
        may_try = self._may_try and not self._admitted
        room = self._window.allowed - self._open if self.gate.is_open else int(may_try)
        while room > 0 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._admitted.add(waiter)
                room -= 1
