"""Process state that a handler may change and that the next job depends on.  Runs in the child.

Tested by tests/process/test_child.py.
"""

from __future__ import annotations

import _thread
import os
import resource
import signal
import sys

# The functions of `signal` convert each answer to an enum: 18 us for all signals, instead of 1 us.
from _signal import getsignal, pthread_sigmask  # type: ignore[import-not-found]
from typing import Any, NamedTuple

SIGNALS = sorted(int(number) for number in signal.valid_signals() - {signal.SIGTERM})
"""All signals but SIGTERM, whose handler the child installs again for each job."""
_BLOCK = int(signal.SIG_BLOCK)
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})


class ProcessSnapshot(NamedTuple):
    """The state of the process.  A child whose state differs after a job is not reused."""

    descriptors: tuple[tuple[int, int] | None, ...]
    """Device and inode of each standard descriptor."""
    streams: tuple[tuple[int, bool], ...]
    umask: int
    limits: tuple[tuple[int, int], ...]
    handlers: tuple[Any, ...]
    blocked: frozenset[int]
    timers: tuple[float, ...]
    processors: frozenset[int]
    threads: int
    """Number of threads besides the main one.  Python cannot end a thread that a job left running."""
    has_free_descriptor: bool
    """True if one more descriptor can be opened."""

    @classmethod
    def of_this_process(cls) -> ProcessSnapshot:
        return cls(
            descriptors=(_identity(0), _identity(1), _identity(2)),
            streams=(_state(sys.stdin), _state(sys.stdout), _state(sys.stderr)),
            umask=_umask(),
            limits=tuple(map(resource.getrlimit, LIMITS)),
            handlers=tuple(map(getsignal, SIGNALS)),
            blocked=frozenset(pthread_sigmask(_BLOCK, ())),
            timers=tuple([signal.getitimer(timer)[0] for timer in _TIMERS]),
            processors=frozenset(os.sched_getaffinity(0)),
            threads=running_threads(),
            has_free_descriptor=_has_free_descriptor(),
        )


def running_threads() -> int:
    """Return the number of threads besides the main one, including those that `threading` does not know."""
    return _thread._count()  # noqa: SLF001 - there is no public function


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _state(stream: Any) -> tuple[int, bool]:
    try:
        return id(stream), not stream.closed
    except Exception:  # noqa: BLE001 - a detached stream raises, and a replacement may raise anything
        return id(stream), False


def _umask() -> int:
    umask = os.umask(0)  # no system call only reads it
    os.umask(umask)
    return umask


def _has_free_descriptor() -> bool:
    try:
        os.close(os.dup(0))
    except OSError:
        return False
    return True
