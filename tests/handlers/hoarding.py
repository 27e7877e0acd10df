"""Handlers that send descriptors which nobody receives: the kernel counts them against all processes of the user."""

import ctypes
import os
import resource
import socket
import threading
import time
from pathlib import Path

from supervisor import Context, handler
from supervisor.ipc import blocking_pipe as pipe_main

FEW = 256
AT_ONCE = 250
KEPT: list[socket.socket] = []


@handler("hoards")
def hoards(context: Context, until: str) -> None:
    """As many as a process may have open, and some more, until this file is there."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = hoard(limit)
    context.emit("hoarding", {})
    while not Path(until).exists():
        time.sleep(0.01)
    for end in kept:
        end.close()


@handler("hoards-then-much")
def hoards_then_much(seconds: float | None) -> str:
    """A result that cannot be handed over for so many seconds, or never within the patience of its process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = hoard(FEW)  # before it is held to that: other tests may hoard as well, and end before we do
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, hard))
    become_subject_to_limits()

    def relent() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for end in kept:
            end.close()

    if seconds is None:
        pipe_main.SEND_RETRY_DELAYS = (0.0, 0.01)
        KEPT.extend(kept)
    else:
        threading.Timer(seconds, relent).start()
    return "x" * 5_000_000


def become_subject_to_limits() -> None:
    """Have no capability (capset(2)): with some, no limit counts."""
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())


def hoard(limit: int) -> list[socket.socket]:
    """The ends of sockets on which as many descriptors as the kernel lets us send are on their way."""
    kept: list[socket.socket] = []
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        for _ in range(limit // AT_ONCE + 2):
            kept += socket.socketpair()
            socket.send_fds(kept[-1], [b"x"], [null] * AT_ONCE)
    except OSError:
        pass  # it has noticed
    finally:
        os.close(null)
    return kept
