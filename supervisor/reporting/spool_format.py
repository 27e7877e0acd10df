"""File format of one stored outcome: written once, verified before it is sent.  `spool` manages the files.

    result       base64, as it is sent; first, so that the open file serves as the `Blob` that is sent
    record       JSON: destination, attempt, and everything except the result
    length       size of the record, 4 bytes, big endian
    checksum     SHA-256 of all preceding bytes
    marker       identifies the format and its version

Blocks on the disk, so it runs in threads.  At most one chunk of a result is in memory.
Tested by tests/reporting/test_spool.py.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator

import msgspec

from supervisor.job import Blob, Failed, Fence, Outcome, Succeeded

FORMAT_MARKER = b"mobspl-1"
CHECKSUM_BYTES = hashlib.sha256().digest_size
MAX_RECORD_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024


class CorruptSpoolFile(Exception):
    """The file is damaged; the message says how.  Caught by the spool, which moves the file to `damaged`."""


class Destination(msgspec.Struct, frozen=True):
    """Server and project of an outcome, which is never sent to any other."""

    base_url: str
    project: str


class SpoolRecord(msgspec.Struct, frozen=True):
    """Everything except the result.  `result_size` is None without a result; `written_at` is wall-clock time."""

    destination: Destination
    fence: Fence
    action: str
    written_at: float
    failed: Failed | None
    result_size: int | None

    def outcome(self, descriptor: int) -> Outcome:
        """Return the outcome in the open file `descriptor`.  The caller keeps the descriptor open, and closes it."""
        if self.failed is not None:
            return self.failed
        return Succeeded(None if self.result_size is None else Blob(descriptor, self.result_size))


def record_of(destination: Destination, fence: Fence, action: str, outcome: Outcome, written_at: float) -> SpoolRecord:
    """Return the record that is stored with the result of `outcome`."""
    match outcome:
        case Failed():
            return SpoolRecord(destination, fence, action, written_at, outcome, None)
        case Succeeded(Blob(size=size)):
            return SpoolRecord(destination, fence, action, written_at, None, size)
        case Succeeded(bytes() as result):
            return SpoolRecord(destination, fence, action, written_at, None, len(result))
        case _:
            return SpoolRecord(destination, fence, action, written_at, None, None)


def write(descriptor: int, record: SpoolRecord, outcome: Outcome) -> None:
    """Write record and result to the empty file `descriptor`, and sync it to the disk."""
    digest = hashlib.sha256()
    with open(descriptor, "wb", closefd=False) as file:
        for piece in _pieces(record, outcome):
            digest.update(piece)
            file.write(piece)
        file.write(digest.digest() + FORMAT_MARKER)
    os.fsync(descriptor)


def peek(descriptor: int) -> SpoolRecord:
    """Return the record of a file without verifying the checksum; raise `CorruptSpoolFile`."""
    record, _ = _record_and_end(descriptor)
    return record


def verify(descriptor: int) -> SpoolRecord:
    """Verify the checksum of a file and return its record; raise `CorruptSpoolFile`."""
    record, end = _record_and_end(descriptor)
    digest = hashlib.sha256()
    for piece in _stored(descriptor, end):
        digest.update(piece)
    if digest.digest() != os.pread(descriptor, CHECKSUM_BYTES, end):
        raise CorruptSpoolFile("its checksum does not match its content")
    return record


def _pieces(record: SpoolRecord, outcome: Outcome) -> Iterator[bytes]:
    match outcome:
        case Succeeded(Blob(descriptor, size)):
            yield from _stored(descriptor, size)
        case Succeeded(bytes() as result):
            yield result
    encoded = msgspec.json.encode(record)
    yield encoded
    yield len(encoded).to_bytes(4, "big")


def _stored(descriptor: int, size: int) -> Iterator[bytes]:
    for offset in range(0, size, CHUNK_BYTES):
        wanted = min(CHUNK_BYTES, size - offset)
        piece = os.pread(descriptor, wanted, offset)
        if len(piece) < wanted:  # the child may have kept the file of its result, and truncated it
            raise OSError("the file shrank while it was read")
        yield piece


def _record_and_end(descriptor: int) -> tuple[SpoolRecord, int]:
    """Return the record, and the number of bytes that the checksum covers."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise CorruptSpoolFile("it is not a regular file")
    end = status.st_size - CHECKSUM_BYTES - len(FORMAT_MARKER)
    if end < 4 or os.pread(descriptor, len(FORMAT_MARKER), status.st_size - len(FORMAT_MARKER)) != FORMAT_MARKER:
        raise CorruptSpoolFile("its end is missing")
    length = int.from_bytes(os.pread(descriptor, 4, end - 4), "big")
    if length > min(end - 4, MAX_RECORD_BYTES):
        raise CorruptSpoolFile("its record is too long")
    record = _decoded(os.pread(descriptor, length, end - 4 - length))
    if (record.result_size or 0) != end - 4 - length:
        raise CorruptSpoolFile("its result has the wrong length")
    return record, end


def _decoded(encoded: bytes) -> SpoolRecord:
    try:
        return msgspec.json.decode(encoded, type=SpoolRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptSpoolFile(f"its record cannot be decoded: {error}") from error
