"""What a child, or a zygote, prints: cut in lines, rate-limited, the last ones kept for a crash report.

Runs in the parent's event loop and owns the reading end of the output pipe.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from supervisor.process.kernel import bytes_waiting
from supervisor.timing.bucket import TokenBucket

READ_SIZE = 64 * 1024
LONGEST_LINE = 4096
"""Bytes; a longer line is told in pieces of this size."""
BURST = 256 * 1024
"""Bytes that may be printed at once."""
RATE = 64 * 1024
"""Bytes a second that may be printed for ever; what is above is dropped and counted."""
TAIL = 8 * 1024
"""Bytes kept for `last_lines`."""


class Output:
    """Calls `on_line` for each line that is printed."""

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._on_line = on_line
        self._loop = asyncio.get_running_loop()
        self._partial = b""
        self._tail = b""
        self._dropped = 0
        self._allowance = TokenBucket(rate=RATE, burst=BURST, now=self._loop.time())
        self._loop.add_reader(descriptor, self._read)

    def last_lines(self, most: int = 20) -> list[str]:
        """The last lines printed since `forget`, at most `most` of them and 8 KiB."""
        return [_text(line) for line in self._tail.splitlines()[-most:]]

    def forget(self) -> None:
        """A new job begins: what was printed before is not part of its story."""
        self._tail = b""

    def drain(self) -> None:
        """Take all that has been printed so far, the last line also without its newline.

        No more than that: a thread, or what a dead child left behind, may print faster than we read.
        """
        left = bytes_waiting(self._descriptor) if self._descriptor >= 0 else 0
        while left > 0 and (taken := self._read()):
            left -= taken
        self.end_line()

    def end_line(self) -> None:
        """Nothing more comes for now: tell the last line also without its newline."""
        self._say_dropped()
        if self._partial:
            self._say(self._partial)
            self._partial = b""

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> int:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return 0
        if data:
            self._take(data)
        else:
            self.close()
        return len(data)

    def _take(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-TAIL:]
        if not self._allowance.take(len(data), self._loop.time()):
            self._dropped += len(data)
            return
        self._say_dropped()
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._say(line)
        while len(self._partial) > LONGEST_LINE:
            self._on_line(_text(self._partial[:LONGEST_LINE]))
            self._partial = self._partial[LONGEST_LINE:]

    def _say(self, line: bytes) -> None:
        for start in range(0, max(len(line), 1), LONGEST_LINE):
            self._on_line(_text(line[start : start + LONGEST_LINE]))

    def _say_dropped(self) -> None:
        if self._dropped:
            self._on_line(f"[{self._dropped} bytes of output dropped: more than {RATE} a second]")
            self._dropped = 0


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", "backslashreplace")
