"""The stack of a child's handler, written on SIGUSR1, and on SIGTERM before the interruption.

Runs in the child.  `faulthandler` writes the stacks of all threads, from C, at any point of the program.  For a
coroutine that waits, these show only the event loop, so its frames are written as well.
Tested by tests/process/test_child.py.
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
    """Owns the action of SIGUSR1."""

    def __init__(self, interruption: Interruption, stack: int) -> None:
        """`stack` is the descriptor of the stack file."""
        self._interruption = interruption
        self._stack = stack
        signal.signal(signal.SIGUSR1, lambda *_: self.write())
        self._leave_to_c()

    @contextmanager
    def of_coroutines(self) -> Iterator[None]:
        """Inside the block, SIGUSR1 also runs the Python handler, which writes the frames of coroutines.

        Outside of it only the C handler runs, because it restarts interrupted system calls (sigaction(2), SA_RESTART).
        The signal always has a handler, because its default action would end the process.
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
        """Write the frames of the handler's tasks if its event loop is waiting."""
        if (loop := self._interruption.waits_in) is not None:
            text = "".join(f"\n{_format_frames(task)}" for task in islice(_tasks(loop), MAX_TASKS))
            with contextlib.suppress(OSError):
                os.write(self._stack, text.encode("utf-8", "backslashreplace"))


def _tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Return the tasks in order of creation, as far as their names show it."""
    import asyncio  # already loaded: there is a loop

    return sorted(asyncio.all_tasks(loop), key=lambda task: (len(task.get_name()), task.get_name()))


def _format_frames(task: asyncio.Task[Any]) -> str:
    """Format the frames of a task as `faulthandler` does."""
    frames = list(islice(coroutine_frames(task.get_coro()), MAX_FRAMES))
    places = (
        f'  File "{each.f_code.co_filename}", line {each.f_lineno} in {each.f_code.co_name}\n' for each in frames[::-1]
    )
    return f"{task.get_name()} (most recent call first):\n{''.join(places)}"
