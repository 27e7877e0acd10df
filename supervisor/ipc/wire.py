"""Frames on a pipe: four bytes of length, then one message as msgpack.  Pure: bytes in, bytes out.

Nothing that crosses a pipe is unpickled; a frame that does not decode into the expected messages raises `WireError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

Message = TypeVar("Message")

LENGTH_BYTES = 4
MAX_FRAME_BYTES = 2 * 1024 * 1024
"""Bytes.  Anything larger travels as a descriptor, so a longer frame is garbage ("GET " announces 1.2 GB)."""
ATTACH_ABOVE_BYTES = 1024 * 1024
"""Bytes.  Parameters and results above this size travel as a descriptor beside the frame."""

_encode = msgspec.msgpack.Encoder().encode


class WireError(Exception):
    """The peer broke the protocol of the pipe.  Caught by the pipe, which ends the peer."""


class SendTimeout(WireError):
    """The kernel kept refusing to send a message.  The pipe ends the peer, although the peer did nothing wrong."""


def encode(message: msgspec.Struct) -> bytes:
    """Return `message` as one frame."""
    body = _encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


@lru_cache
def decoder_of(message_type: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return the decoder of a message type; creating one takes half a millisecond, as long as a fork."""
    return msgspec.msgpack.Decoder(message_type)


class Decoder(Generic[Message]):
    """Turns bytes, cut anywhere, back into messages of one type (a union of tagged structs)."""

    def __init__(self, message_type: Any) -> None:  # a union is not a `type` to the type checker
        self._decoder = decoder_of(message_type)
        self._rest = b""

    def feed(self, data: bytes) -> Iterable[Message]:
        """Return each complete message, in order; raise `WireError` at the first invalid frame."""
        if not self._rest and len(data) == LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big") <= MAX_FRAME_BYTES:
            return (self._decode(data[LENGTH_BYTES:]),)  # the usual case: exactly one frame
        return self._cut(data)

    def _cut(self, data: bytes) -> Iterator[Message]:
        data = self._rest + data if self._rest else data
        start = 0
        try:
            while (end := self._frame_end(data, start)) is not None:
                body, start = data[start + LENGTH_BYTES : end], end
                yield self._decode(body)
        finally:
            self._rest = data[start:]

    def _frame_end(self, data: bytes, start: int) -> int | None:
        body = start + LENGTH_BYTES
        if len(data) < body:
            return None
        size = int.from_bytes(data[start:body], "big")
        if size > MAX_FRAME_BYTES:
            raise WireError(f"announced a frame of {size} bytes, the limit is {MAX_FRAME_BYTES}")
        return body + size if len(data) >= body + size else None

    def _decode(self, body: bytes) -> Message:
        try:
            message: Message = self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"sent a frame that is no message ({error}): {body[:32].hex(' ')}") from error
        return message
