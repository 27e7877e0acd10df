"""Writes log lines without blocking the parent's event loop.

A stopped terminal (Ctrl-S) or a stalled log driver would block the loop, and with it all heartbeats.  So a thread
writes to streams that may block, from a queue of limited size.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import stat
import threading
from collections import deque
from contextlib import suppress
from typing import TextIO

MAX_QUEUED_BYTES = 4 * 1024 * 1024
"""Limit of the queue, in characters.  Lines beyond it are dropped and counted."""
FLUSH_TIMEOUT = 2.0
"""Seconds to write the queued lines at exit."""


class LogWriter:
    """Writes lines to one stream.  Never raises, because jobs matter more than a log line."""

    def __init__(self, stream: TextIO | None) -> None:
        """Prepare writing; `stream` is None if the program was started with descriptor 2 closed."""
        self._stream = stream
        self._writer = _WriterThread(stream) if stream is not None and _may_block(stream) else None

    def write(self, line: str) -> None:
        """Write a line, or queue it for the thread."""
        if self._writer is not None:
            self._writer.put(line + "\n")
        elif self._stream is not None:
            _write(self._stream, line + "\n")


class _WriterThread:
    """A queue of lines and the thread that writes them, which starts with the first line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[str] = deque()
        self._waiting = 0  # characters, of the line that is being written as well
        self._dropped = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        with self._changed:
            if self._waiting + len(line) > MAX_QUEUED_BYTES:
                self._dropped += 1
                return
            self._lines.append(line)
            self._waiting += len(line)
            if self._thread is None:
                self._start()
            self._changed.notify_all()

    def _start(self) -> None:
        # A daemon thread, because a blocked one would otherwise prevent the exit of the program.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no room for a thread: the next line tries again
            self._thread = None
        else:
            atexit.register(self._flush)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._dropped)
                lines, self._lines = self._lines, deque()
                dropped, self._dropped = self._dropped, 0
            for line in lines:
                _write(self._stream, line)
            if dropped:
                _write(self._stream, f"[{dropped} log lines dropped: the reader was too slow]\n")
            with self._changed:
                self._waiting -= sum(map(len, lines))
                self._changed.notify_all()

    def _flush(self) -> None:
        """Wait until the queued lines are written, at most `FLUSH_TIMEOUT`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout=FLUSH_TIMEOUT)


def _write(stream: TextIO, text: str) -> None:
    # The journal or the reader of a pipe went away, the disk is full, the stream was closed.
    with suppress(OSError, ValueError):
        descriptor = _descriptor_of(stream)
        if descriptor is None:
            stream.write(text)
        else:
            _write_all(descriptor, text.encode(stream.encoding or "utf-8", "backslashreplace"))


def _descriptor_of(stream: TextIO) -> int | None:
    """The descriptor to write to; None if there is none behind the stream.

    The stream's own buffer keeps what could not be written: Python tries again when the program ends, and makes 120 of
    the exit code.  Its lock is held while a write waits, and Python waits for that lock when it ends.
    """
    try:
        return stream.fileno()
    except io.UnsupportedOperation:
        return None


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        try:
            content = content[os.write(descriptor, content) :]
        except BlockingIOError:  # another program that shares the terminal has made it so
            writable = select.poll()
            writable.register(descriptor, select.POLLOUT)
            writable.poll()


def _may_block(stream: TextIO) -> bool:
    """Whether a write may wait for a reader: on a pipe, a socket, a terminal."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # no file at all, or a closed one
        return False
    return not stat.S_ISREG(mode)
