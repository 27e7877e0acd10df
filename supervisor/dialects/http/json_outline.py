"""What stands in the outer object of a JSON text, without what stands deeper.  Pure; fed with the text in pieces.

So an answer of any size is understood while it passes, and none of it has to be held.  It looks for quotation marks
and brackets only: whether all of it is JSON is for whoever reads what was left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

MAX_OUTLINE_BYTES = 1024 * 1024
"""Bytes of an outline: enough for all that is small."""
MAX_TEXT_BYTES = 16 * 1024
"""Bytes of a text that is kept, give or take a piece."""
STRIDE_BYTES = 32 * 1024
"""Bytes looked at in one go."""

_TOKEN = re.compile(rb'\\.|["{}\[\]]', re.DOTALL)
_OPENING, _CLOSING = b"{[", b"}]"
_STEPS = bytes.maketrans(_OPENING + _CLOSING, b"\x01\x01\xff\xff")
"""From brackets to what they add to the depth, as signed bytes."""
_OTHERS = bytes(set(range(256)) - set(_OPENING + _CLOSING + b'"'))


class OutlineTooLarge(Exception):
    """There is too much that is small.  Caught by whoever reads the answer."""


class Outline:
    """The text as it stands, but what is large is told by its place: `[start,end]`, in bytes of the whole text.

    That is each object and array in the outer one, however small it is, and each text of more than `LONGEST_TEXT`.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._depth = 0
        self._in_text = False
        self._at = 0
        self._escape = b""  # a backslash whose other half comes with the next piece
        self._began_at = 0  # what is begun, or was last, in the outer object
        self._kept_before = 0
        self._is_left_out = False

    def __bytes__(self) -> bytes:
        return bytes(self._kept)

    def feed(self, text: bytes) -> None:
        """Take the text's next bytes; raise `TooWide`."""
        for start in range(0, len(text), STRIDE_BYTES):
            self._take(text[start : start + STRIDE_BYTES])
        if len(self._kept) > MAX_OUTLINE_BYTES:
            raise OutlineTooLarge

    def _take(self, piece: bytes) -> None:
        piece = self._escape + piece
        self._escape = b"\\" if (len(piece) - len(piece.rstrip(b"\\"))) % 2 else b""
        piece = piece[: len(piece) - len(self._escape)]
        if not self._is_left_out or not self._pass_over(piece):
            self._read(piece)
        self._at += len(piece)
        self._leave_out_long_text()

    def _pass_over(self, piece: bytes) -> bool:
        """Pass over a piece that never leads back to the outer object; false, and nothing is done, when it does.

        Token by token that would take a second for each 20 MiB of small values.
        """
        if self._in_text and b'"' not in piece:
            return True
        unescaped = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        # Two marks side by side change nothing for what stands around them, be they of one text or of two.
        bare = unescaped.translate(_STEPS, _OTHERS).replace(b'""', b"")
        parts = bare.split(b'"')
        steps = memoryview(b"".join(parts[self._in_text :: 2])).cast("b")
        # From where it begins: a text of the outer object leads back there as soon as it ends.
        if self._depth + min(accumulate(steps, initial=0)) < 2:
            return False
        self._depth += sum(steps)
        self._in_text ^= len(parts) % 2 == 0
        return True

    def _read(self, piece: bytes) -> None:
        kept_from = 0
        for token, begins in self._turns(piece):
            if begins:
                self._kept += piece[kept_from : token.start()]
                kept_from = token.start()
                self._began_at, self._kept_before = self._at + kept_from, len(self._kept)
                self._is_left_out = token[0] != b'"'
            elif self._is_left_out:
                kept_from = token.end()
                self._kept += b"[%d,%d]" % (self._began_at, self._at + kept_from)
                self._is_left_out = False
        if not self._is_left_out:
            self._kept += piece[kept_from:]

    def _turns(self, piece: bytes) -> Iterator[tuple[re.Match[bytes], bool]]:
        """The marks with which an object, array or text in the outer object begins (true) or ends."""
        for token in _TOKEN.finditer(piece):
            mark = token[0]
            if mark == b'"':
                self._in_text = not self._in_text
                if self._depth == 1:
                    yield token, self._in_text
            elif not self._in_text and mark in _OPENING:
                self._depth += 1
                if self._depth == 2:
                    yield token, True
            elif not self._in_text and mark in _CLOSING:
                self._depth -= 1
                if self._depth == 1:
                    yield token, False

    def _leave_out_long_text(self) -> None:
        is_kept = self._in_text and self._depth == 1 and not self._is_left_out
        if is_kept and self._at - self._began_at > MAX_TEXT_BYTES:
            del self._kept[self._kept_before :]
            self._is_left_out = True
