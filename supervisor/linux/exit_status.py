"""How a process ended, in words and figures.  Pure."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import dataclass

from supervisor.text.size import format_size

MAX_STACK_BYTES = 3 * 1024
"""Bytes of a stack that are shown."""
MAX_OUTPUT_BYTES = 3 * 1024
"""Bytes of the last output that are shown."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """What `wait4(2)` tells of a process.

    `signal` is the number of the signal that ended it (0: it left by itself with `code`); `peak_memory` is its largest
    resident size in bytes, `cpu` its seconds of processor time.
    """

    code: int
    signal: int
    peak_memory: int
    cpu: float
    is_known: bool = True
    """False if the exit status was collected elsewhere."""

    @classmethod
    def of(cls, status: int, usage: resource.struct_rusage) -> ExitStatus:
        """Made of what `os.wait4` returned."""
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
        # ru_maxrss is in KiB on Linux, getrusage(2).
        return cls(code, ended_by, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)

    def __str__(self) -> str:
        if not self.is_known:
            return "ended, and its exit status was lost"
        return f"was killed by {signal_name(self.signal)}" if self.signal else f"exited with code {self.code}"


UNKNOWN = ExitStatus(code=0, signal=0, peak_memory=0, cpu=0.0, is_known=False)


@dataclass(frozen=True, slots=True)
class OomKill:
    """A death by the kernel for want of memory.

    `limit` is the job's own; None when it is not that which was reached, but all that the host or the unit has.
    `peak` is what the job and all that it started had at most, None when nobody knows.
    """

    limit: int | None
    peak: int | None


@dataclass(frozen=True, slots=True)
class ExitReport:
    """What is left of a child: how it ended, its Python stack when that was asked for, what it printed last."""

    exit: ExitStatus
    reason: str
    stack: str
    last_lines: list[str]
    oom_kill: OomKill | None = None

    @property
    def is_at_limit(self) -> bool:
        """Whether the kernel ended it at the job's own limit of memory."""
        return self.oom_kill is not None and self.oom_kill.limit is not None

    @property
    def figures(self) -> str:
        """What it used, in words; the memory is that of the process, of an earlier job perhaps."""
        return f"peak memory of the process {format_size(self.exit.peak_memory)}, {self.exit.cpu:.2f} s of CPU"

    @property
    def details(self) -> str:
        """Stack and last output, each with its title; nothing where there is none."""
        stack = f"\n\nstack:\n{_start(self.stack, MAX_STACK_BYTES)}" if self.stack else ""
        output = "\n".join(self.last_lines)
        return stack + (f"\n\nlast output:\n{_end(output, MAX_OUTPUT_BYTES)}" if output else "")


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11; `signal 40` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _start(text: str, limit: int) -> str:
    return text.encode("utf-8", "backslashreplace")[:limit].decode("utf-8", "ignore")


def _end(text: str, limit: int) -> str:
    return text.encode("utf-8", "backslashreplace")[-limit:].decode("utf-8", "ignore")
