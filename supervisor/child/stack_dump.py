"""Where a child's handler is, when that is asked: on SIGUSR1, and on SIGTERM before it is interrupted.

Runs in the child.  `faulthandler` writes the stacks of all threads, in C and so from anywhere; but of a handler that is
a coroutine, and waits, they show its loop alone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from supervisor.concurrency.coroutine_frames import coroutine_frames
from supervisor.handler_api.interruption import Interruption

if TYPE_CHECKING:
    import asyncio

MAX_TASKS = 16
MAX_FRAMES = 32


class StackDumper:
    """Owns what SIGUSR1 does."""

    def __init__(self, interruption: Interruption, stack: int) -> None:
        """`stack` is the descriptor that is written to."""
        self._interruption = interruption
        self._stack = stack
        signal.signal(signal.SIGUSR1, lambda *_: self.write())
        self._leave_to_c()

    @contextmanager
    def of_coroutines(self) -> Iterator[None]:
        """While the block runs, SIGUSR1 is heard in Python as well.

        Not otherwise: a call in C that the signal ends is begun anew only when nobody else hears it (sigaction(2),
        SA_RESTART).  In between it is never without a meaning, which would be the end of the process.
        """
        faulthandler.unregister(signal.SIGUSR1)
        faulthandler.register(signal.SIGUSR1, self._stack, all_threads=True, chain=True)
        try:
            yield
        finally:
            self._leave_to_c()

    def _leave_to_c(self) -> None:
        faulthandler.unregister(signal.SIGUSR1)
        faulthandler.register(signal.SIGUSR1, self._stack, all_threads=True)

    def write(self) -> None:
        """Write where the coroutines of the handler wait, if it is one and waits."""
        if (loop := self._interruption.waits_in) is not None:
            text = "".join(f"\n{_where(task)}" for task in islice(_tasks(loop), MAX_TASKS))
            with contextlib.suppress(OSError):
                os.write(self._stack, text.encode("utf-8", "backslashreplace"))


def _tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """In the order in which they were made, as far as their names tell."""
    import asyncio  # loaded already, or there would be no loop

    return sorted(asyncio.all_tasks(loop), key=lambda task: (len(task.get_name()), task.get_name()))


def _where(task: asyncio.Task[Any]) -> str:
    """In the form of `faulthandler`."""
    frames = list(islice(coroutine_frames(task.get_coro()), MAX_FRAMES))
    places = (
        f'  File "{each.f_code.co_filename}", line {each.f_lineno} in {each.f_code.co_name}\n' for each in frames[::-1]
    )
    return f"{task.get_name()} (most recent call first):\n{''.join(places)}"
