"""A descriptor that is kept back for when all others are used up: by a handler in a child, or in the parent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager


class SpareDescriptor:
    """Holds one descriptor from `fill` to `close`, or none while there is none to be had."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    @contextmanager
    def released(self) -> Iterator[None]:
        """While this lasts, one more descriptor can be opened than otherwise."""
        self.close()
        try:
            yield
        finally:
            self.fill()

    def fill(self) -> None:
        """Hold one from now on, if it can be had."""
        if self._descriptor is None:
            with contextlib.suppress(OSError):
                self._descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Hold none."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # a handler may have closed it
                os.close(self._descriptor)
            self._descriptor = None
