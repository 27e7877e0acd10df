"""The processes that a child's handler started and left behind.  Runs in the child, which is their subreaper.

Whatever daemonizes itself comes back to its subreaper, so that nothing a handler starts outlives its job.
"""

from __future__ import annotations

import contextlib
import os
import signal

from supervisor.process.kernel import children_of


def end_all() -> int:
    """Kill and reap every descendant; return how many were still alive."""
    killed = 0
    while exist():
        # Killing a child hands its own children to us: hence the loop, until there are none.
        for pid in children_of(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                killed += _is_alive(pid)
                os.kill(pid, signal.SIGKILL)  # no race on the pid: nobody but us can reap it
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    return killed


def exist() -> bool:
    """Whether there are any, zombies included: each of them is below a child of ours."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
