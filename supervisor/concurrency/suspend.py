"""Notification after a suspend of the machine, during which the loop's timers stop but leases expire."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator

from supervisor.linux.syscalls import watch_clock


@contextlib.contextmanager
def on_resume(callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` when the machine resumes from a suspend, and also when its clock is set."""
    try:
        watch = watch_clock()
    except OSError:  # without it, leases are checked at their next regular time, at most a second later
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(watch, _on_clock_change, watch, callback)
    try:
        yield
    finally:
        loop.remove_reader(watch)
        os.close(watch)


def _on_clock_change(watch: int, callback: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):  # ECANCELED signals the change (timerfd_create(2))
        os.read(watch, 8)
    callback()
