"""How many claims may be open at once.  Pure rules and a gate for the slots.

One open poll is enough to learn that a cold queue has got a job; while claims come back with jobs, every free slot may
ask.  So 64 idle slots cost the server one connection, and 1,000 new jobs reach them in six round trips.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from supervisor.concurrency.backoff import Backoff
from supervisor.pool.claim_gate import BlockReason, ClaimGate


class PollWindow:
    """The number of polls that may be open, learned from how the last ones ended."""

    def __init__(self) -> None:
        self.allowed = 1

    def found(self, most: int) -> None:
        """A claim brought a job: ask twice as much, up to `most`."""
        self.allowed = min(most, 2 * self.allowed)

    def found_nothing(self) -> None:
        """A claim came back empty, or failed: one poll less."""
        self.allowed = max(1, self.allowed - 1)


class PollLimiter:
    """Lets slots in, one for each poll that may be open: wait for `room`, and then, with nothing in between, `with`."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        """How many may want to poll; never more polls than that are open."""
        self.gate = ClaimGate(self._admit)
        """Whether any poll may be opened."""
        self._window = PollWindow()
        self._open = 0
        self._paused_until = 0.0
        self._trial: asyncio.TimerHandle | None = None  # of a poll though the server refuses the key
        self._trial_delay = 0.0
        self._is_trial_due = False
        self._backoff = Backoff(0.2, 15.0)  # after polls that brought what is of no use
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._admitted: set[asyncio.Future[None]] = set()  # whose turn it is, and who have not come yet

    @property
    def open(self) -> int:
        """How many polls are open now."""
        return self._open

    @property
    def is_stuck(self) -> bool:
        """Whether somebody waits though a poll may be opened."""
        waits = any(not waiter.done() for waiter in self._waiting)
        return waits and self.gate.is_open and self._open + len(self._admitted) < self._window.allowed

    @property
    def is_available(self) -> bool:
        """Whether one more poll may be opened."""
        return self._open < self._window.allowed if self.gate.is_open else self._may_try

    async def wait_available(self) -> None:
        """Wait until one more poll may be opened."""
        while not self.is_available:
            await self._change()

    def __enter__(self) -> None:
        """A poll is open inside the block."""
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
        """Open no poll while the server refuses the key, but one in `retry_in` seconds, which asks again."""
        self._trial_delay = retry_in
        self.gate.block(BlockReason.CREDENTIAL, why)
        self._plan_trial()

    def accept(self) -> None:
        """The server accepts the key again."""
        if self._trial is not None:
            self._trial.cancel()
        self._trial, self._is_trial_due = None, False
        self.gate.unblock(BlockReason.CREDENTIAL)

    @property
    def _may_try(self) -> bool:
        return self._is_trial_due and self.gate.allows_trial

    def _plan_trial(self) -> None:
        """Also after a trial that ended without an answer: the next one is due after the same delay."""
        if self._trial is None and not self._is_trial_due:
            self._trial = asyncio.get_running_loop().call_later(self._trial_delay, self._offer_trial)

    def _offer_trial(self) -> None:
        self._trial, self._is_trial_due = None, True
        self._admit()

    def pause(self, seconds: float, why: str) -> None:
        """Open no further poll for so long."""
        loop = asyncio.get_running_loop()
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        self.gate.block(BlockReason.SERVER, why)
        loop.call_at(self._paused_until, self._end_pause, self._paused_until)

    def found(self) -> None:
        """The caller's poll brought a job."""
        if self._backoff.failures:
            self._backoff.reset()
        if self._window.allowed != self.slots:
            self._window.found(self.slots)
            self._admit()

    def found_nothing(self) -> None:
        """The caller's poll came back empty, or failed."""
        self._window.found_nothing()

    def found_unrunnable(self, why: str) -> None:
        """The caller's poll brought a job that we cannot run: the next one is opened later each time, by whomever."""
        self.found_nothing()
        self.pause(self._backoff.next(), why)

    def _end_pause(self, until: float) -> None:
        # Not by comparing times again: a loop may call a little early.
        if until == self._paused_until:
            self._paused_until = 0.0
            self.gate.unblock(BlockReason.SERVER)

    async def _change(self) -> None:
        """Wait until there may be room for the caller's poll."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            self._admit()  # the turn that was ours may be another's
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
