"""What a child, or a zygote, prints: cut in lines, rate-limited, the last ones kept for a crash report.

A carriage return ends a picture of a progress bar, which the next one replaces: one is told now and then, and the last.

Runs in the parent's event loop and owns the reading end of the output pipe.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from supervisor.concurrency.token_bucket import TokenBucket
from supervisor.linux.syscalls import bytes_waiting

OUTPUT_READ_BYTES = 64 * 1024
MAX_LINE_BYTES = 4096
"""Bytes; a longer line is logged in pieces of this size."""
OUTPUT_BURST_BYTES = 256 * 1024
"""Bytes that may be printed at once."""
OUTPUT_BYTES_PER_SECOND = 64 * 1024
"""Bytes per second that may be printed continuously; excess output is dropped and counted."""
OUTPUT_TAIL_BYTES = 8 * 1024
"""Bytes kept for `last_lines`."""
PICTURE_INTERVAL = 5.0
"""Seconds between two reported states of a progress bar; the last state is always reported."""


class Output:
    """Calls `on_line` for each line that is printed."""

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._on_line = on_line
        self._loop = asyncio.get_running_loop()
        self._partial = b""
        self._tail = b""
        self._reported_picture: bytes | None = None  # of the line that goes on
        self._picture_due_at = self._loop.time() + PICTURE_INTERVAL
        self._dropped = 0
        self._allowance = TokenBucket(rate=OUTPUT_BYTES_PER_SECOND, burst=OUTPUT_BURST_BYTES, now=self._loop.time())
        self._loop.add_reader(descriptor, self._read)

    def last_lines(self, most: int = 20) -> list[str]:
        """The last lines printed since `start_job`, at most `most` of them and 8 KiB."""
        lines = self._tail.removesuffix(b"\n").split(b"\n") if self._tail else []
        return [_text(_newest_picture(line)) for line in lines[-most:]]

    def start_job(self) -> None:
        """Forget the lines of the previous job."""
        self._tail = b""

    def drain(self) -> None:
        """Read all that has been printed so far, including a last line without newline.

        No more than that: a thread, or what a dead child left behind, may print faster than we read.
        """
        left = bytes_waiting(self._descriptor) if self._descriptor >= 0 else 0
        while left > 0 and (taken := self._read()):
            left -= taken
        self.end_line()

    def end_line(self) -> None:
        """Report the last line even without its newline: the job has ended."""
        self._log_dropped()
        if self._partial:
            self._emit_line(self._partial)
            self._partial = b""

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> int:
        try:
            data = os.read(self._descriptor, OUTPUT_READ_BYTES)
        except BlockingIOError:
            return 0
        if data:
            self._take(data)
        else:
            self.close()
        return len(data)

    def _take(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-OUTPUT_TAIL_BYTES:]
        if not self._allowance.take(len(data), self._loop.time()):
            self._dropped += len(data)
            return
        self._log_dropped()
        *lines, rest = (self._partial + data).split(b"\n")
        for line in lines:
            self._emit_line(line)
        self._partial = self._newest(rest)
        if b"\r" in self._partial and self._loop.time() >= self._picture_due_at:
            self._say_picture()

    def _emit_line(self, line: bytes) -> None:
        """Report a complete line; of a progress bar the last state, unless it was reported already."""
        picture = _newest_picture(self._newest(line))
        if picture != self._reported_picture:
            self._on_line(_text(picture))
        self._reported_picture = None
        self._picture_due_at = self._loop.time() + PICTURE_INTERVAL

    def _say_picture(self) -> None:
        self._reported_picture = _newest_picture(self._partial)
        self._on_line(_text(self._reported_picture))
        self._picture_due_at = self._loop.time() + PICTURE_INTERVAL

    def _newest(self, line: bytes) -> bytes:
        """Return the part of a line to keep: the newest state and the rest after it.  Report what is too long."""
        *pictures, last = map(self._without_pieces, line.split(b"\r"))
        shown = next((picture for picture in reversed(pictures) if picture.strip()), b"")
        return shown + b"\r" + last if pictures else last

    def _without_pieces(self, picture: bytes) -> bytes:
        """Report all full pieces of a line that is too long, and return the last piece."""
        while len(picture) > MAX_LINE_BYTES:
            self._on_line(_text(picture[:MAX_LINE_BYTES]))
            picture = picture[MAX_LINE_BYTES:]
        return picture

    def _log_dropped(self) -> None:
        if self._dropped:
            self._on_line(f"[{self._dropped} bytes of output dropped: more than {OUTPUT_BYTES_PER_SECOND} a second]")
            self._dropped = 0


def _newest_picture(line: bytes) -> bytes:
    """Return the visible part of a line: the last text between carriage returns that is not blank."""
    pictures = line.split(b"\r")
    return next((picture for picture in reversed(pictures) if picture.strip()), pictures[-1])


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", "backslashreplace")
