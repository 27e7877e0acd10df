"""The resource tracker of `multiprocessing`, which removes shared memory that its users have not.  In the child only.

It is a process that `multiprocessing` starts when it is first needed, and that ends, after its work, once nobody holds
the other end of its pipe.  Killed, it would leave in /dev/shm for ever what a handler has forgotten there.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

from supervisor.linux.syscalls import children_of, has_ended

TRACKER_STOP_TIMEOUT = 2.0
"""Seconds that it may take to remove what is left."""
TRACKER_POLL_INTERVAL = 0.001
"""Seconds between two looks at whether it has ended."""


def pid() -> int | None:
    """Our own tracker; None when there is none, or that of the process that we were forked from."""
    number = getattr(_known(), "_pid", None)
    return number if isinstance(number, int) and number in children_of(os.getpid()) else None


def shut_down(number: int) -> None:
    """Have our own tracker do its work and end; `multiprocessing` starts another one when it needs it."""
    tracker = _known()
    with contextlib.suppress(OSError, TypeError):
        os.close(tracker._fd)  # noqa: SLF001 - as in `_known`
    tracker._fd = tracker._pid = None  # noqa: SLF001
    give_up_at = time.monotonic() + TRACKER_STOP_TIMEOUT
    while not has_ended(number) and time.monotonic() < give_up_at:
        time.sleep(TRACKER_POLL_INTERVAL)
    if has_ended(number):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(number, os.WNOHANG)


def _known() -> Any:
    # There is no public way to it; a version of Python in which these names are others has it killed, as before.
    return getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
