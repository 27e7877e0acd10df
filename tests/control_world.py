"""What tests of the control socket need."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisor.control.listening_socket import SocketFile


@contextmanager
def listening_at(path: Path) -> Iterator[socket.socket]:
    """Listen at `path`, and remove the file in the end; the caller closes the socket."""
    file = SocketFile(path)
    end = file.bind()
    try:
        yield end
    finally:
        file.remove()
