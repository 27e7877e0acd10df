"""SIGTERM in a child: write the stack of the handler, then interrupt it.  A process forked by a handler just ends.

Runs in the main thread of the child.  Tested by tests/process/test_child.py.
"""

from __future__ import annotations

import faulthandler
import os
import signal

# `signal.getsignal` converts its answer to an enum, which takes longer than the call.
from _signal import getsignal  # type: ignore[import-not-found]

from supervisor.child.stack_dump import StackDumper
from supervisor.handler_api.interruption import Interruption
from supervisor.linux.syscalls import SignalMask


class SigtermHandler:
    """Turns SIGTERM into an interruption of the handler."""

    def __init__(self, interruption: Interruption, stack_dumper: StackDumper, stack: int) -> None:
        """`stack` is the descriptor of the stack file."""
        self._interruption = interruption
        self._stack_dumper = stack_dumper
        self._stack = stack
        self._on_signal = lambda *_: self._interrupt()
        # SIGTERM is blocked during a fork.  In the new process, our handler would swallow the signal.  In the forking
        # process, Python would only print a `Cancelled` that is raised inside a fork hook.  So the hooks that block
        # and unblock are C functions.
        self._mask = SignalMask(signal.SIGTERM)
        os.register_at_fork(before=self._mask.hold, after_in_parent=self._mask.restore, after_in_child=self._release)

    def install(self) -> None:
        """Install the handler at the start of a job: an earlier job may have replaced it.

        SIGTERM both writes the stack and interrupts.  A separate signal for the stack would end a system call before
        SIGTERM arrives, and the job would continue as if the call had completed (signal(7), "Interruption of system
        calls").
        """
        # Reading takes a tenth of the time of setting.  A handler that replaces and restores ours goes unnoticed: then
        # SIGTERM writes no stack, and only SIGUSR1 does.
        if getsignal(signal.SIGTERM) is not self._on_signal:
            faulthandler.unregister(signal.SIGTERM)
            signal.signal(signal.SIGTERM, self._on_signal)
            faulthandler.register(signal.SIGTERM, self._stack, all_threads=True, chain=True)

    def _interrupt(self) -> None:
        if not self._interruption.requested:  # the parent repeats SIGTERM
            self._stack_dumper.write()
        self._interruption.request()

    def _release(self) -> None:
        """Restore the default action in a process that the handler forked: it runs no job."""
        if getsignal(signal.SIGTERM) is self._on_signal:
            faulthandler.unregister(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._mask.restore()
