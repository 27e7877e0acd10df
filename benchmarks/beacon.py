"""Where handlers under measurement tell the benchmark what it cannot see: a datagram socket in the file system."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import PATIENCE


class Beacon:
    """The end at which it is heard."""

    def __init__(self, path: Path, end: socket.socket) -> None:
        self.path = str(path)
        self._end = end

    def receive(self) -> bytes:
        """The next message."""
        return self._end.recv(4096)

    def hear_within(self, seconds: float) -> str | None:
        """The next message as text; None when there is none in this time."""
        self._end.settimeout(max(seconds, 1e-6))
        try:
            return self._end.recv(4096).decode()
        except TimeoutError:
            return None
        finally:
            self._end.settimeout(PATIENCE)


@contextmanager
def beacon() -> Iterator[Beacon]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end,
    ):
        path = Path(folder) / "beacon"
        end.bind(str(path))
        end.settimeout(PATIENCE)
        yield Beacon(path, end)
