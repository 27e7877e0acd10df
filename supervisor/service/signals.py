"""Signal handlers in the running loop.  Tested by tests/flows/test_drain.py."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def signal_handlers(reactions: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Call each reaction in the running loop when its signal arrives, inside the block."""
    loop = asyncio.get_running_loop()
    for number, reaction in reactions.items():
        loop.add_signal_handler(number, reaction)
    try:
        yield
    finally:
        for number in reactions:
            loop.remove_signal_handler(number)
