"""The form of one outcome in a file: written once, checked whenever it is read.  Files come and go in `spool`.

    result       base64, as it is sent; first, so that the open file serves as the `Blob` it is sent from
    note         JSON: whose outcome it is, and everything but the result
    length       of the note, 4 bytes, big endian
    checksum     SHA-256 of all before it
    mark         says what this is, and in which version

Blocks on the disk, so it runs in threads.  It never holds more than a chunk of a result in memory.
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
    """The file is not what was written; the text says in what.  Caught by the spool, which sets the file aside."""


class Destination(msgspec.Struct, frozen=True):
    """Whose jobs an outcome is about: it is never sent to another server, or to another project."""

    base_url: str
    project: str


class SpoolRecord(msgspec.Struct, frozen=True):
    """What stands beside the result; `result_size` is None where there is none, `written_at` is wall-clock time."""

    destination: Destination
    fence: Fence
    action: str
    written_at: float
    failed: Failed | None
    result_size: int | None

    def outcome(self, descriptor: int) -> Outcome:
        """The outcome in the open file `descriptor`, which the caller keeps open and closes."""
        if self.failed is not None:
            return self.failed
        return Succeeded(None if self.result_size is None else Blob(descriptor, self.result_size))


def record_of(destination: Destination, fence: Fence, action: str, outcome: Outcome, written_at: float) -> SpoolRecord:
    """What is to stand beside the result of `outcome`."""
    match outcome:
        case Failed():
            return SpoolRecord(destination, fence, action, written_at, outcome, None)
        case Succeeded(Blob(size=size)):
            return SpoolRecord(destination, fence, action, written_at, None, size)
        case Succeeded(bytes() as result):
            return SpoolRecord(destination, fence, action, written_at, None, len(result))
        case _:
            return SpoolRecord(destination, fence, action, written_at, None, None)


def write(descriptor: int, note: SpoolRecord, outcome: Outcome) -> None:
    """Write both to the empty file `descriptor`, and have them on the disk when this returns."""
    digest = hashlib.sha256()
    with open(descriptor, "wb", closefd=False) as file:
        for piece in _pieces(note, outcome):
            digest.update(piece)
            file.write(piece)
        file.write(digest.digest() + FORMAT_MARKER)
    os.fsync(descriptor)


def peek(descriptor: int) -> SpoolRecord:
    """The note of a file, without looking at the rest of it; raise `Damaged`."""
    note, _ = _note_and_end(descriptor)
    return note


def verify(descriptor: int) -> SpoolRecord:
    """The note of a file that was found to be whole; raise `Damaged`."""
    note, end = _note_and_end(descriptor)
    digest = hashlib.sha256()
    for piece in _stored(descriptor, end):
        digest.update(piece)
    if digest.digest() != os.pread(descriptor, CHECKSUM_BYTES, end):
        raise CorruptSpoolFile("its checksum does not fit its content")
    return note


def _pieces(note: SpoolRecord, outcome: Outcome) -> Iterator[bytes]:
    match outcome:
        case Succeeded(Blob(descriptor, size)):
            yield from _stored(descriptor, size)
        case Succeeded(bytes() as result):
            yield result
    encoded = msgspec.json.encode(note)
    yield encoded
    yield len(encoded).to_bytes(4, "big")


def _stored(descriptor: int, size: int) -> Iterator[bytes]:
    for offset in range(0, size, CHUNK_BYTES):
        wanted = min(CHUNK_BYTES, size - offset)
        piece = os.pread(descriptor, wanted, offset)
        if len(piece) < wanted:  # of a result: the child may have kept its file, and cut it
            raise OSError("the file has shrunk while it was read")
        yield piece


def _note_and_end(descriptor: int) -> tuple[SpoolRecord, int]:
    """The note, and how many bytes the checksum covers."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise CorruptSpoolFile("it is no regular file")
    end = status.st_size - CHECKSUM_BYTES - len(FORMAT_MARKER)
    if end < 4 or os.pread(descriptor, len(FORMAT_MARKER), status.st_size - len(FORMAT_MARKER)) != FORMAT_MARKER:
        raise CorruptSpoolFile("its end is missing")
    length = int.from_bytes(os.pread(descriptor, 4, end - 4), "big")
    if length > min(end - 4, MAX_RECORD_BYTES):
        raise CorruptSpoolFile("its note is longer than it can be")
    note = _decoded(os.pread(descriptor, length, end - 4 - length))
    if (note.result_size or 0) != end - 4 - length:
        raise CorruptSpoolFile("its result is not as long as it should be")
    return note, end


def _decoded(encoded: bytes) -> SpoolRecord:
    try:
        return msgspec.json.decode(encoded, type=SpoolRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptSpoolFile(f"its note makes no sense: {error}") from error
