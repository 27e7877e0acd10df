"""The processes that a child's handler started and left behind.  Runs in the child, which is their subreaper.

Whatever daemonizes itself comes back to its subreaper, so that nothing a handler starts outlives its job.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn

from supervisor.linux.syscalls import children_of, has_ended, kill_child

KILL_TIMEOUT = 5.0
"""Seconds that one may live on after its SIGKILL; the parent tries again, and then lets it be."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.0002, 0.02
"""Seconds between two looks at whether one has ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How many were still alive and were killed, and how many could not be."""

    killed: int
    spared: int

    def __add__(self, later: Ended) -> Ended:
        """What two rounds, one after the other, have come to."""
        return Ended(self.killed + later.killed, later.spared)


def end_all(*, but: int | None = None) -> Ended:
    """Kill and reap every descendant, as far as that can be done; the child `but` stays."""
    killed = 0
    spared: set[int] = set()
    left_alone = set() if but is None else {but}
    give_up_at = time.monotonic() + KILL_TIMEOUT
    while exist():
        # Killing a child hands its own children to us: hence the loop, until there are none.
        pids = set(children_of(os.getpid())) - spared - left_alone
        if not pids and (spared or left_alone):
            break
        alive = {pid for pid in pids if not has_ended(pid)}
        refused = {pid for pid in pids if not kill_child(pid)}
        for pid in pids:
            if pid not in refused and _reap(pid, give_up_at):
                killed += pid in alive
            else:
                spared.add(pid)
    return Ended(killed, len(spared))


def exist() -> bool:
    """Whether there are any, zombies included: each of them is below a child of ours."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _reap(pid: int, give_up_at: float) -> bool:
    """Wait until our child `pid` has ended, and reap it; False when that takes too long."""
    pause = SHORTEST_PAUSE
    while not has_ended(pid):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return True


def leave(error: BaseException | None) -> NoReturn:
    """End this process, which the handler has forked and which comes back to our code with `error`, or without one.

    As a Python program ends; what it would say next, on a pipe that it shares with the child, would be taken for the
    child's own word.
    """
    status = 0
    with contextlib.suppress(Exception):  # the streams may be anything by now
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            if status and not isinstance(error.code, int):
                sys.stderr.write(f"{error.code}\n")
        elif error is not None:
            status = 1
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)


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
