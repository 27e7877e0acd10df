"""Handlers that send descriptors which nobody receives: the kernel counts them against all processes of the user."""

import os
import resource
import socket
import time

from supervisor import Context, handler

AT_ONCE = 250


@handler("hoards")
def hoards(context: Context, seconds: float) -> None:
    """As many as a process may have open, and some more, for so long."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = hoard(limit)
    context.emit("hoarding", {})
    time.sleep(seconds)
    for end in kept:
        end.close()


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
