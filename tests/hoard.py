"""So many descriptors of this user on their way that the kernel sends no other one (unix(7), ETOOMANYREFS)."""

from __future__ import annotations

import ctypes
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.process_world import open_descriptors

VERSION = 0x20080522
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
AT_ONCE = 250

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def hoard() -> Iterator[Callable[[], None]]:
    """Inside the block this thread can send no descriptor, until what is yielded is called."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(int(number) for number, _ in open_descriptors()) + 64
    ends = socket.socketpair()

    def relent() -> None:
        # The kernel counts what all processes of this user have sent, and other tests may hoard as well.
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for end in ends:
            end.close()

    with ExitStack() as stack:
        stack.callback(relent)
        _send_more_than(few, ends[0])
        stack.enter_context(_subject_to_limits())
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
        yield relent


def _send_more_than(limit: int, end: socket.socket) -> None:
    with open("/dev/null", "rb") as null:
        for _ in range(limit // AT_ONCE + 2):
            socket.send_fds(end, [b"x"], [null.fileno()] * AT_ONCE)


@contextmanager
def _subject_to_limits() -> Iterator[None]:
    """Without the capabilities of this thread that put it above the limit, if it has them (capset(2))."""
    header = (ctypes.c_uint32 * 2)(VERSION, 0)
    before, without = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    for held in (before, without):
        _capabilities("capget", header, held)
    without[0] &= ~(1 << CAP_SYS_ADMIN | 1 << CAP_SYS_RESOURCE)  # the first word is that of the effective ones
    _capabilities("capset", header, without)
    try:
        yield
    finally:
        _capabilities("capset", header, before)


def _capabilities(call: str, header: object, held: object) -> None:
    if _libc[call](header, held) != 0:
        raise OSError(ctypes.get_errno(), call)
