"""What a handler may have spoiled in its process for the jobs after it.  Runs in the child."""

from __future__ import annotations

import _thread
import os
import resource
import signal
import sys

# Those of `signal` make an enum of each answer: for all signals that takes 18 us instead of one.
from _signal import getsignal, pthread_sigmask  # type: ignore[import-not-found]
from typing import Any, NamedTuple

SIGNALS = sorted(int(number) for number in signal.valid_signals() - {signal.SIGTERM})
"""All but the one that the child sets anew for each job."""
_BLOCK = int(signal.SIG_BLOCK)
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})


class ProcessSnapshot(NamedTuple):
    """How a process is; one that a job has left otherwise is unfit for the next."""

    outlets: tuple[tuple[int, int] | None, ...]
    """What the standard descriptors are."""
    streams: tuple[tuple[int, bool], ...]
    umask: int
    limits: tuple[tuple[int, int], ...]
    handlers: tuple[Any, ...]
    blocked: frozenset[int]
    timers: tuple[float, ...]
    processors: frozenset[int]
    threads: int
    """How many run beside the main one; what a job has left goes on beside the next one, and cannot be ended."""
    has_room: bool
    """Whether one more descriptor can be opened."""

    @classmethod
    def of_this_process(cls) -> ProcessSnapshot:
        return cls(
            outlets=(_identity(0), _identity(1), _identity(2)),
            streams=(_state(sys.stdin), _state(sys.stdout), _state(sys.stderr)),
            umask=_umask(),
            limits=tuple(map(resource.getrlimit, LIMITS)),
            handlers=tuple(map(getsignal, SIGNALS)),
            blocked=frozenset(pthread_sigmask(_BLOCK, ())),
            timers=tuple([signal.getitimer(timer)[0] for timer in _TIMERS]),
            processors=frozenset(os.sched_getaffinity(0)),
            threads=running_threads(),
            has_room=_has_room(),
        )


def running_threads() -> int:
    """How many run beside the main one, those included that `threading` knows nothing of."""
    return _thread._count()  # noqa: SLF001 - there is no other way to see them


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _state(stream: Any) -> tuple[int, bool]:
    try:
        return id(stream), not stream.closed
    except Exception:  # noqa: BLE001 - a stream that was detached raises, and what replaced one may do anything
        return id(stream), False


def _umask() -> int:
    umask = os.umask(0)  # there is no call that only tells it
    os.umask(umask)
    return umask


def _has_room() -> bool:
    try:
        os.close(os.dup(0))
    except OSError:
        return False
    return True
