"""Virtual time: an event loop that never waits, the clocks that go with it, and a disk that takes its time.

The loop's clock stands still while the machine is suspended, boottime does not; both move only when nothing is ready
to run.  Threads are timers of the same loop, so a run is one sequence of steps, the same for the same story.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterator
from typing import Any

MOST_STEPS = 10_000
"""Steps in one instant; a story has some tens of them."""
LONGEST_LIFE = 10_000.0
"""Seconds; a story has some hundreds of them, and some thousands when its outcome lies in the spool."""


class Gone(BaseException):
    """The process is dead: whatever it still tries to do does not happen."""


class Clock:
    """What time it is, by the clock that stands still in a suspend and by those that do not."""

    def __init__(self) -> None:
        self.running = 1000.0
        self.suspended = 0.0
        self.resumed_at = 0.0
        """When the machine was last suspended, on the loop's clock, to which that took no time."""

    def boottime(self) -> float:
        return self.running + self.suspended

    def wall(self) -> float:
        return 1e9 + self.boottime()

    def suspend(self, length: float) -> None:
        self.suspended += length
        self.resumed_at = self.running


class VirtualSelector(selectors.DefaultSelector):
    """Moves the clock instead of waiting; is asked once in every step of the loop."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.on_step: Callable[[], None] = lambda: None
        """Called between any two steps, and whenever time has passed; what it raises ends the run."""
        self._began_at = clock.running
        self._steps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.on_step()
        self._steps += 1
        assert timeout is not None, "everybody waits for something that never comes"
        assert self._steps < MOST_STEPS, "somebody spins: time stands still"
        if timeout > 0:
            self.clock.running += timeout
            self._steps = 0
            assert self.clock.running < self._began_at + LONGEST_LIFE, "it never ends"
            self.on_step()
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose threads are timers: `delays` says how long each call in a thread takes, then it is none at all."""

    def __init__(self, clock: Clock, delays: Iterator[float]) -> None:
        self.selector = VirtualSelector(clock)
        super().__init__(self.selector)
        self.clock = clock
        self._delays = delays
        self._calls: set[asyncio.Future[Any]] = set()
        self._is_gone = False

    def time(self) -> float:
        return self.clock.running

    @property
    def is_calling(self) -> bool:
        """Whether a thread is at work."""
        return bool(self._calls)

    def run_in_executor(self, _: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        if self._is_gone:
            raise Gone
        future = self.create_future()
        self._calls.add(future)
        self.call_later(next(self._delays, 0.0) / 2, self._call, future, func, args)
        return future

    def forget_stop(self) -> None:
        """A run that was broken off when it was just complete has left a call behind that stops the next one."""
        self.call_soon(self.stop)
        self.run_forever()

    def kill(self) -> None:
        """The threads are gone, as they are when the process is; nobody starts another one until `revive`."""
        self._is_gone = True
        for future in self._calls:
            if not future.done():
                future.set_exception(Gone())
        self._calls.clear()

    def revive(self) -> None:
        self._is_gone = False

    def _call(self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if future.done():
            return
        try:
            result, error = func(*args), None
        except Exception as raised:
            result, error = None, raised
        self.call_later(next(self._delays, 0.0) / 2, self._finish, future, result, error)

    def _finish(self, future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        self._calls.discard(future)
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
