"""What SIGTERM does in a child: it says where the handler is and interrupts it; what a handler forks is ended by it.

Runs in the child, in its main thread.
"""

from __future__ import annotations

import faulthandler
import os
import signal

# That of `signal` makes an enum of its answer, which takes longer than the call.
from _signal import getsignal  # type: ignore[import-not-found]

from supervisor.child.stack_dump import StackDumper
from supervisor.handler_api.interruption import Interruption
from supervisor.linux.syscalls import SignalMask


class SigtermHandler:
    """The way from the signal to the handler."""

    def __init__(self, interruption: Interruption, whereabouts: StackDumper, stack: int) -> None:
        """`stack` is the descriptor that a stack is written to."""
        self._interruption = interruption
        self._whereabouts = whereabouts
        self._stack = stack
        self._on_signal = lambda *_: self._interrupt()
        # What comes while a process is not its own master yet would be lost on it; and a `Cancelled` in whoever forks
        # would be lost in a hook, for Python only prints what hooks raise.  So no code of Python is run in these.
        self._mask = SignalMask(signal.SIGTERM)
        os.register_at_fork(before=self._mask.hold, after_in_parent=self._mask.restore, after_in_child=self._release)

    def install(self) -> None:
        """A job begins; the one before may have taken the signal for itself.

        One signal for both: a signal of its own for the stack would end a call in C before the other one comes, and
        the handler would go on as if it had waited to the end (signal(7), "Interruption of system calls").
        """
        # To look takes a tenth of what to set takes.  What a handler has set and set back is not seen: then the stack
        # of a job that is asked to stop is to be had by SIGUSR1 only.
        if getsignal(signal.SIGTERM) is not self._on_signal:
            faulthandler.unregister(signal.SIGTERM)
            signal.signal(signal.SIGTERM, self._on_signal)
            faulthandler.register(signal.SIGTERM, self._stack, all_threads=True, chain=True)

    def _interrupt(self) -> None:
        if not self._interruption.requested:  # what comes later is a nudge
            self._whereabouts.write()
        self._interruption.request()

    def _release(self) -> None:
        """In the forked process: no job of ours is run here, whatever its handler does."""
        if getsignal(signal.SIGTERM) is self._on_signal:
            faulthandler.unregister(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._mask.restore()
