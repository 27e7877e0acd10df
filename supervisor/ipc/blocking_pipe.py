"""The other end of a message pipe: blocking, inside a zygote or a child.  No event loop, no thread of its own."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Generic

import msgspec

from supervisor.ipc.send_errors import SEND_RETRY_DELAYS, is_gone, reason
from supervisor.ipc.wire import Decoder, Message, encode
from supervisor.linux.syscalls import receive

PIPE_READ_BYTES = 64 * 1024


class BlockingPipe(Generic[Message]):
    """Sends messages, and receives those of one type together with their descriptors."""

    def __init__(self, end: socket.socket, message_type: Any) -> None:  # a union is not a `type` to the type checker
        self._socket = end
        self._decoder: Decoder[Message] = Decoder(message_type)
        self._received: list[Message] = []
        self._descriptors: list[int] = []
        # A handler may emit from several threads; frames must not be mixed.
        self._sending = threading.Lock()
        self._readable = select.poll()
        self._readable.register(end, select.POLLIN)
        self._identity = self._look()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: msgspec.Struct, *descriptors: int) -> None:
        """Send one message, waiting for room; raise OSError when the peer, or our own descriptor, is gone.

        Also when the kernel goes on refusing it for some seconds, as a `ConnectionAbortedError` if it has taken a part.
        """
        frame = encode(message)
        with self._sending:
            sent = self._send_some(frame, descriptors)
            if sent < len(frame):
                self._send_rest(memoryview(frame)[sent:])

    def _send_some(self, data: bytes | memoryview, descriptors: Sequence[int] = ()) -> int:
        """Send what the kernel takes; return how much that is."""
        for pause in SEND_RETRY_DELAYS:
            try:
                return self._send_once(data, descriptors)
            except OSError as error:
                if is_gone(error):
                    raise
            time.sleep(pause)
        return self._send_once(data, descriptors)

    def _send_once(self, data: bytes | memoryview, descriptors: Sequence[int]) -> int:
        if descriptors:
            return socket.send_fds(self._socket, [data], list(descriptors))
        return self._socket.send(data)

    def _send_rest(self, rest: memoryview) -> None:
        while rest:
            try:
                rest = rest[self._send_some(rest) :]
            except OSError as error:
                if is_gone(error):
                    raise
                # The peer would read the next message as the rest of this one.
                raise ConnectionAbortedError(errno.ECONNABORTED, f"half a message was sent: {reason(error)}") from error

    def receive(self) -> Message | None:
        """The next message; None at the end of file."""
        while not self._received:
            # Not in recvmsg(2): the kernel would wake us also when the peer reads what we have sent, which takes the
            # peer longer than the read itself.
            self._readable.poll()
            data, descriptors, _ = receive(self._socket, PIPE_READ_BYTES)
            if not data:
                return None
            self._descriptors += descriptors
            self._received += self._decoder.feed(data)
        return self._received.pop(0)

    @property
    def has_more(self) -> bool:
        """Whether `receive` need not wait."""
        return bool(self._received) or bool(self._readable.poll(0))

    def take_descriptor(self) -> int:
        """The oldest descriptor that came along; raise OSError when the kernel had no room for it here."""
        if not self._descriptors:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._descriptors.pop(0)

    @property
    def is_intact(self) -> bool:
        """False if the handler closed or replaced the descriptor."""
        return self._look() == self._identity

    def _look(self) -> tuple[int, int] | None:
        try:
            status = os.fstat(self._socket.fileno())
        except OSError:
            return None
        return status.st_dev, status.st_ino
