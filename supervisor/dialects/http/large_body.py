"""Reader of an answer of any size, which stores a large one in an anonymous file.  Runs in the parent.

Tested by tests/dialects/http/test_client.py.
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
    """Reads one answer of at most `largest` bytes.  Owns the file until `take`; its creator calls `close`."""

    largest: int
    reserve: SpareDescriptor
    """Used when the process has no free descriptor, because a claimed job that cannot be stored is lost."""
    _descriptor: int = -1

    def close(self) -> None:
        """Close the file unless `take` has passed it on."""
        if self._descriptor >= 0:
            os.close(self.take())

    @property
    def is_empty(self) -> bool:
        """True if the answer is in memory."""
        return self._descriptor < 0

    def take(self) -> int:
        """Return the file with the answer; the caller owns it from now on."""
        taken, self._descriptor = self._descriptor, -1
        return taken

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the answer, or its outline if it went to the file; raise `Unavailable` when it is too long."""
        length, encoding = response.content_length, response.headers.get("Content-Encoding")
        if (
            length is not None and length <= ATTACH_ABOVE_BYTES and encoding is None
        ):  # compressed bytes may expand to gigabytes
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
        """Write the answer to the file, beginning with the bytes `held`."""
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
            raise Unavailable("the answer has too much data besides the job's parameters") from None
        return bytes(outline)

    def _new_file(self) -> int:
        try:
            with self.reserve.released():
                return os.memfd_create("answer", os.MFD_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"cannot create a file for a long answer: {error.strerror}") from error

    @property
    def _too_long(self) -> Unavailable:
        return Unavailable(f"the answer is longer than {self.largest} bytes")


def _writer(descriptor: int) -> BinaryIO:
    return open(descriptor, "wb", closefd=False)
