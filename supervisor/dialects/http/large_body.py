"""An answer of any size: in memory when it is small, else in a file without a name.  Runs in the parent.

It owns the file until somebody takes it.
"""

from __future__ import annotations

import os
from typing import BinaryIO

import aiohttp
import msgspec

from supervisor.dialects.http.json_outline import Outline, OutlineTooLarge
from supervisor.ipc.wire import ATTACH_ABOVE_BYTES
from supervisor.job_server import Unavailable
from supervisor.linux.spare_descriptor import SpareDescriptor


class LargeBody(msgspec.Struct, eq=False):
    """Reads one answer of at most `largest` bytes; whoever makes it closes it."""

    largest: int
    reserve: SpareDescriptor
    """For when there is no other descriptor left: a job that is not received is lost."""
    _descriptor: int = -1

    def close(self) -> None:
        """Give up the file, if there is one that nobody has taken."""
        if self._descriptor >= 0:
            os.close(self.take())

    @property
    def is_empty(self) -> bool:
        """Whether the answer is all in memory."""
        return self._descriptor < 0

    def take(self) -> int:
        """The file that holds the answer; the caller closes it."""
        taken, self._descriptor = self._descriptor, -1
        return taken

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        """The answer, or its outline when the answer is in the file; raise `Unavailable` when it is too long."""
        length, encoding = response.content_length, response.headers.get("Content-Encoding")
        if (
            length is not None and length <= ATTACH_ABOVE_BYTES and encoding is None
        ):  # a few bytes may unpack to gigabytes
            return await response.read()
        if length is not None and length > self.largest:
            raise self._too_long
        held = bytearray()
        async for piece in response.content.iter_any():
            held += piece
            if len(held) > ATTACH_ABOVE_BYTES:
                return await self._pour(bytes(held), response)
        return bytes(held)

    async def _pour(self, held: bytes, response: aiohttp.ClientResponse) -> bytes:
        """Write all of the answer to the file, of which `held` is there already."""
        self._descriptor = self._new_file()
        outline, size = Outline(), 0
        try:
            with _writer(self._descriptor) as file:
                piece = held
                while piece:
                    size += len(piece)
                    if size > self.largest:
                        raise self._too_long
                    outline.feed(piece)
                    file.write(piece)
                    piece = await response.content.readany()
        except OutlineTooLarge:
            raise Unavailable("the answer has too much beside the job's parameters") from None
        return bytes(outline)

    def _new_file(self) -> int:
        try:
            with self.reserve.released():
                return os.memfd_create("answer", os.MFD_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"there is no file for an answer this long: {error.strerror}") from error

    @property
    def _too_long(self) -> Unavailable:
        return Unavailable(f"the answer is longer than {self.largest} bytes")


def _writer(descriptor: int) -> BinaryIO:
    return open(descriptor, "wb", closefd=False)
