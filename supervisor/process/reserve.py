"""A descriptor that is kept back for when a handler has used up all others.  Runs in the child."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager


class Reserve:
    """Holds one descriptor, or none while there is none to be had."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._refill()

    @contextmanager
    def spent(self) -> Iterator[None]:
        """While this lasts, one more descriptor can be opened than otherwise."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # a handler may have closed it
                os.close(self._descriptor)
            self._descriptor = None
        try:
            yield
        finally:
            self._refill()

    def _refill(self) -> None:
        with contextlib.suppress(OSError):
            self._descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
