"""Being told that the machine was suspended: meanwhile the event loop's timers stood still, and leases did not."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator

from supervisor.linux.syscalls import watch_clock


@contextlib.contextmanager
def on_resume(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` as soon as the machine comes back from a suspend; also when only its clock was set."""
    try:
        watch = watch_clock()
    except OSError:  # then leases are looked at when their next look is due, a second later at most
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(watch, _heard, watch, tell)
    try:
        yield
    finally:
        loop.remove_reader(watch)
        os.close(watch)


def _heard(watch: int, tell: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):  # ECANCELED is the news
        os.read(watch, 8)
    tell()
