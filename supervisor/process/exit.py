"""How a process ended, in words and figures.  Pure."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exit:
    """What `wait4(2)` tells of a process.

    `signal` is the number of the signal that ended it (0: it left by itself with `code`); `peak_memory` is its largest
    resident size in bytes, `cpu` its seconds of processor time.
    """

    code: int
    signal: int
    peak_memory: int
    cpu: float

    @classmethod
    def of(cls, status: int, usage: resource.struct_rusage) -> Exit:
        """Made of what `os.wait4` returned."""
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
        # ru_maxrss is in KiB on Linux, getrusage(2).
        return cls(code, ended_by, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)

    def __str__(self) -> str:
        return f"was killed by {signal_name(self.signal)}" if self.signal else f"exited with code {self.code}"


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11; `signal 40` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
