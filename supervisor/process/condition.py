"""What a handler may have spoiled in its process for the jobs after it.  Runs in the child."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading

# Those of `signal` make an enum of each answer: for all signals that takes 18 us instead of one.
from _signal import getsignal, pthread_sigmask  # type: ignore[import-not-found]
from typing import Any, NamedTuple

SIGNALS = sorted(int(number) for number in signal.valid_signals() - {signal.SIGTERM})
"""All but the one that the child sets anew for each job."""
_BLOCK = int(signal.SIG_BLOCK)
LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})


class Condition(NamedTuple):
    """How a process is; one that a job has left otherwise is unfit for the next."""

    outlets: tuple[tuple[int, int] | None, ...]
    """What the standard descriptors are."""
    streams: tuple[tuple[int, bool], ...]
    umask: int
    limits: tuple[tuple[int, int], ...]
    handlers: tuple[Any, ...]
    blocked: frozenset[int]
    has_timer: bool
    threads: int
    """How many run; one that a job has left goes on beside the next one, and cannot be ended."""
    has_room: bool
    """Whether one more descriptor can be opened."""

    @classmethod
    def of_this_process(cls) -> Condition:
        return cls(
            outlets=(_identity(0), _identity(1), _identity(2)),
            streams=(_state(sys.stdin), _state(sys.stdout), _state(sys.stderr)),
            umask=_umask(),
            limits=tuple(map(resource.getrlimit, LIMITS)),
            handlers=tuple(map(getsignal, SIGNALS)),
            blocked=frozenset(pthread_sigmask(_BLOCK, ())),
            has_timer=signal.getitimer(signal.ITIMER_REAL)[0] > 0,
            threads=threading.active_count(),
            has_room=_has_room(),
        )


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
