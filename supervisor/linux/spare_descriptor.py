"""A descriptor in reserve, released when a handler or the parent has used up all others.

Tested by tests/process/test_child.py.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager


class SpareDescriptor:
    """Holds one descriptor from `fill` to `close`, or none if none could be opened."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    @contextmanager
    def released(self) -> Iterator[None]:
        """Release the descriptor inside the block, so that another one can be opened."""
        self.close()
        try:
            yield
        finally:
            self.fill()

    def fill(self) -> None:
        """Open the descriptor if possible."""
        if self._descriptor is None:
            with contextlib.suppress(OSError):
                self._descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # a handler may have closed it
                os.close(self._descriptor)
            self._descriptor = None
