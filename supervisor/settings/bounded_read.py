"""Reads of files that operators name, off the event loop and within a time.

A file may be on a mount that hangs (NFS, FUSE), or another process may hold a lease on it: open(2), stat(2) and read(2)
wait then, for as long as the mount does.  The thread that waits is a daemon, so the program ends without it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from supervisor.settings.resolution import ConfigError

READ_TIMEOUT = 5.0
"""Seconds that a read may take; a file of a few kilobytes takes milliseconds."""

Content = TypeVar("Content")


class BoundedRead(Generic[Content]):
    """One thing to read, again and again; a read that hangs leaves one thread behind, however often it is tried."""

    def __init__(self, what: str, read: Callable[[], Content]) -> None:
        """`what` begins the sentence of an error; `read` runs in a thread."""
        self._what = what
        self._read = read
        self._future: asyncio.Future[Content] | None = None
        self._is_late = False

    async def __call__(self) -> Content:
        """Return what `read` returns and raise what it raises; raise `ConfigError` after `READ_TIMEOUT`."""
        if self._future is None or self._future.done():
            self._future = self._started()
            self._is_late = False
        elif self._is_late:
            raise ConfigError(f"{self._what} cannot be read: an earlier read still waits for its file system")
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                return await asyncio.shield(self._future)  # others may wait for the same read
        except TimeoutError:
            self._is_late = True
            raise ConfigError(
                f"{self._what} cannot be read within {READ_TIMEOUT:g} s: look at the mount of its file"
            ) from None

    def _started(self) -> asyncio.Future[Content]:
        future: asyncio.Future[Content] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieve)
        try:
            threading.Thread(target=self._run, args=(future,), name="bounded read", daemon=True).start()
        except RuntimeError as error:
            raise ConfigError(f"{self._what} cannot be read: {error}") from error
        return future

    def _run(self, future: asyncio.Future[Content]) -> None:
        try:
            content = self._read()
        except BaseException as error:  # noqa: BLE001 - it is raised where the content is awaited
            settle = partial(future.set_exception, error)
        else:
            settle = partial(future.set_result, content)
        with suppress(RuntimeError):  # the loop is closed: the program ended meanwhile
            future.get_loop().call_soon_threadsafe(settle)


def _retrieve(future: asyncio.Future[Content]) -> None:
    """Have no warning of an error that comes after the last caller has left."""
    future.exception()
