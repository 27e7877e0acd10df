"""Exit status of a process, and the report about a dead child.  Pure."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import dataclass

from supervisor.text.size import format_size

MAX_STACK_BYTES = 3 * 1024
"""Bytes of a stack in a report."""
MAX_OUTPUT_BYTES = 3 * 1024
"""Bytes of the last output in a report."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """The exit status and resource usage from `wait4(2)`.

    `signal` is the number of the signal that killed the process, or 0 if it exited with `code`.  `peak_memory` is the
    largest resident size in bytes, `cpu` the processor time in seconds.
    """

    code: int
    signal: int
    peak_memory: int
    cpu: float
    is_known: bool = True
    """False if the exit status was collected elsewhere."""

    @classmethod
    def of(cls, status: int, usage: resource.struct_rusage) -> ExitStatus:
        """Convert the result of `os.wait4`."""
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
    """A kill by the OOM killer of the kernel.

    `limit` is the memory limit of the job, or None if the host or the unit ran out of memory instead.
    `peak` is the peak memory of the job and its descendants in bytes, or None if unknown.
    """

    limit: int | None
    peak: int | None


@dataclass(frozen=True, slots=True)
class ExitReport:
    """Report about a dead child: exit status, Python stack if it was requested, and the last lines of output."""

    exit: ExitStatus
    reason: str
    stack: str
    last_lines: list[str]
    oom_kill: OomKill | None = None

    @property
    def is_at_limit(self) -> bool:
        """True if the kernel killed the child at the memory limit of its job."""
        return self.oom_kill is not None and self.oom_kill.limit is not None

    @property
    def figures(self) -> str:
        """Resource usage in words.  An earlier job of the same process may have caused the peak memory."""
        return f"peak memory of the process {format_size(self.exit.peak_memory)}, {self.exit.cpu:.2f} s of CPU"

    @property
    def details(self) -> str:
        """Stack and last output, each with a title if there is any."""
        stack = f"\n\nstack:\n{_start(self.stack, MAX_STACK_BYTES)}" if self.stack else ""
        output = "\n".join(self.last_lines)
        return stack + (f"\n\nlast output:\n{_end(output, MAX_OUTPUT_BYTES)}" if output else "")


def signal_name(number: int) -> str:
    """Return the name of a signal: `SIGSEGV` for 11, `signal 40` for a signal without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _start(text: str, limit: int) -> str:
    return text.encode("utf-8", "backslashreplace")[:limit].decode("utf-8", "ignore")


def _end(text: str, limit: int) -> str:
    return text.encode("utf-8", "backslashreplace")[-limit:].decode("utf-8", "ignore")
