"""A run's server-sent events, from bytes to `RunEvent`s (protocol, section 6).  Pure: no I/O."""

from __future__ import annotations

from typing import Any

import msgspec


class RunEvent(msgspec.Struct, frozen=True):
    """One event of a run; `seq` grows, `data` depends on `type`: run_updated, job_updated, custom."""

    type: str
    seq: int = 0
    data: dict[str, Any] = {}


class EventDecoder:
    """Puts events together again, wherever the bytes were cut; skips what is no event."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[RunEvent]:
        """Return the events that `piece` completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [event for line in lines if (event := self._read(line.removesuffix(b"\r"))) is not None]

    def _read(self, line: bytes) -> RunEvent | None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        if line or not self._data:
            return None  # a comment, a field we do not need, or an empty line between two comments
        data, self._data = b"\n".join(self._data), []
        try:
            return msgspec.json.decode(data, type=RunEvent)
        except msgspec.DecodeError:
            return None
