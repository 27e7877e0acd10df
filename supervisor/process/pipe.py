"""The parent's end of a message pipe: a stream socket, never blocking, that carries frames and descriptors.

Runs in the parent's event loop.  It knows nothing of what the messages mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic

import msgspec
import structlog

from supervisor.ipc.send_errors import SEND_RETRY_DELAYS, is_gone, reason
from supervisor.ipc.wire import Decoder, Message, SendTimeout, WireError, encode
from supervisor.linux.spare_descriptor import SpareDescriptor
from supervisor.linux.syscalls import MAX_DESCRIPTORS, bytes_unread, bytes_waiting, receive

log = structlog.get_logger("pipe")

PIPE_READ_BYTES = 64 * 1024
"""Bytes taken per turn of the loop and pipe, so that one child's flood cannot keep the others waiting."""
SOCKET_BUFFER_BYTES = 1024 * 1024
"""Bytes.  With the kernel's default a payload of 1 MiB takes ten times as long (many wake-ups)."""


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a message pipe, close-on-exec, with room for a megabyte on the way."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    return ours, theirs


class Pipe(Generic[Message]):
    """Calls `on_message` once per message, in order, and `on_end` once, at the end of file or at a broken frame.

    `on_end` receives None at an end of file, a `SendTimeout` when the kernel keeps refusing what is sent, and otherwise
    the `WireError`.  Nothing is read after it.
    """

    def __init__(
        self,
        end: socket.socket,
        message_type: Any,  # a union is not a `type` to the type checker
        on_message: Callable[[Message], None],
        on_end: Callable[[WireError | None], None],
        *,
        gives_up: bool = False,
    ) -> None:
        """With `gives_up`, a refused message that has descriptors is dropped; their other ends see an end of file."""
        end.setblocking(False)
        self._socket = end
        self._decoder: Decoder[Message] = Decoder(message_type)
        self._on_message = on_message
        self._on_end = on_end
        self._gives_up = gives_up
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[bytes | memoryview, Sequence[int]]] = deque()
        """While it is not empty, the pipe waits for room or for the next retry."""
        self.spare_descriptor: SpareDescriptor | None = None
        """Released to receive a descriptor when no other descriptor is free."""
        self._descriptors: deque[int] = deque()
        self._has_lost_one = False
        self._ended = False
        self._reading = False
        self._writing = False
        self._refusals = 0  # in a row
        self._retry: asyncio.TimerHandle | None = None
        self.resume()

    def send(self, message: msgspec.Struct, *descriptors: int) -> None:
        """Send `message`, now or as soon as there is room; the pipe owns `descriptors` and closes them once sent.

        What the kernel refuses is sent again for some seconds; then the pipe is at its end.
        """
        if self._ended:
            _close_all(descriptors)
            return
        self._unsent.append((encode(message), descriptors))
        if len(self._unsent) == 1:  # otherwise those before it wait for something
            self._write()

    @property
    def is_drained(self) -> bool:
        """True if the peer has read everything sent, or this end is closed."""
        return self._ended or not (self._unsent or bytes_unread(self._socket.fileno()))

    def pause(self) -> None:
        """Stop reading: the peer's next sends wait once the kernel's buffer is full."""
        if self._reading:
            self._loop.remove_reader(self._socket)
            self._reading = False

    def resume(self) -> None:
        """Read again."""
        if not self._reading and not self._ended:
            self._loop.add_reader(self._socket, self._read)
            self._reading = True

    def take_descriptor(self) -> int:
        """The descriptor that came with the message being delivered.

        Raise `WireError` when none did, `OSError` when it came and the kernel had no room for it here.
        """
        if self._descriptors:
            return self._descriptors.popleft()
        if self._has_lost_one:
            self._has_lost_one = False
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        raise WireError("announced a descriptor and sent none")

    def drain(self) -> None:
        """Deliver all that has arrived, at once: messages sent before the peer died still count.

        No more than that: what it left behind may go on talking faster than we read.
        """
        left = 0 if self._ended else bytes_waiting(self._socket.fileno())
        while left > 0 and (taken := self._read()):
            left -= taken

    def close(self) -> None:
        """Close this end; no more messages are delivered."""
        if self._socket.fileno() >= 0:
            self.pause()
            self._stop_writing()
            self._socket.close()
        self._ended = True
        _close_all(self._descriptors)
        self._descriptors.clear()

    def _read(self) -> int:
        """Read and deliver once; return how many bytes that were, 0 when there is no more to come or nothing yet."""
        try:
            data = self._receive()
        except BlockingIOError:
            return 0
        except OSError:  # the peer reset the connection: for us the same as its end of file
            data = b""
        try:
            for message in self._decoder.feed(data):
                self._on_message(message)
                if self._ended:
                    return 0
            if len(self._descriptors) > MAX_DESCRIPTORS:
                raise WireError("sent descriptors that no message announced")
        except WireError as error:
            self._end(error)
        if not data:
            self._end(None)
        return 0 if self._ended else len(data)

    def _receive(self) -> bytes:
        if self.spare_descriptor is None:
            data, descriptors, are_lost = receive(self._socket, PIPE_READ_BYTES)
        else:
            with self.spare_descriptor.released():
                data, descriptors, are_lost = receive(self._socket, PIPE_READ_BYTES)
        if descriptors or are_lost:
            self._descriptors += descriptors
            self._has_lost_one |= are_lost
        return data

    def _write(self) -> None:
        """Send as much as there is room for and schedule the rest."""
        try:
            while self._unsent:
                frame, descriptors = self._unsent[0]
                if descriptors:
                    sent = socket.send_fds(self._socket, [frame], list(descriptors))
                    _close_all(descriptors)
                else:
                    sent = self._socket.send(frame)
                if sent == len(frame):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = (memoryview(frame)[sent:], ())
                self._refusals = 0
        except BlockingIOError:
            self._await_room()
        except OSError as error:
            if is_gone(error):  # the peer's exit is reported elsewhere; these messages have no reader
                self._stop_writing()
            else:
                self._was_refused(error)
        else:
            if self._writing:
                self._stop_awaiting_room()

    def _await_room(self) -> None:
        if not self._writing:
            self._loop.add_writer(self._socket, self._write)
            self._writing = True

    def _stop_awaiting_room(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._socket)
            self._writing = False

    def _was_refused(self, error: OSError) -> None:
        self._stop_awaiting_room()  # there is some, and it does not help
        _, descriptors = self._unsent[0]
        if descriptors and self._gives_up:
            self._drop_first(error)
        elif self._refusals < len(SEND_RETRY_DELAYS):
            self._send_again_after(SEND_RETRY_DELAYS[self._refusals], error)
        else:
            self._stop_writing()
            self._end(SendTimeout(f"could not be told what to do: {reason(error)}"))

    def _drop_first(self, error: OSError) -> None:
        _, descriptors = self._unsent.popleft()
        _close_all(descriptors)
        log.warning("the kernel refuses to send an order, which is dropped", error=reason(error))
        if self._unsent:
            self._retry = self._loop.call_later(0.0, self._write)

    def _send_again_after(self, pause: float, error: OSError) -> None:
        log.warning("the kernel refuses to send an order, which is sent again", error=error.strerror, in_seconds=pause)
        self._refusals += 1
        self._retry = self._loop.call_later(pause, self._write)

    def _stop_writing(self) -> None:
        self._stop_awaiting_room()
        if self._retry is not None:
            self._retry.cancel()
        for _, descriptors in self._unsent:
            _close_all(descriptors)
        self._unsent.clear()

    def _end(self, error: WireError | None) -> None:
        if not self._ended:
            self.pause()
            self._ended = True
            self._on_end(error)


def _close_all(descriptors: Sequence[int] | deque[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
