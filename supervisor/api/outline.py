"""What stands in the outer object of a JSON text, without what stands deeper.  Pure; fed with the text in pieces.

So an answer of any size is understood while it passes, and none of it has to be held.  It looks for quotation marks
and brackets only: whether all of it is JSON is for whoever reads what was left out.
"""

from __future__ import annotations

import re
from itertools import accumulate

LARGEST = 1024 * 1024
"""Bytes of an outline; a job has no more beside its parameters."""
STRIDE = 32 * 1024
"""Bytes looked at in one go."""

_TOKEN = re.compile(rb'\\.|["{}\[\]]', re.DOTALL)
_OPENING, _CLOSING = b"{[", b"}]"
_STEPS = bytes.maketrans(_OPENING + _CLOSING, b"\x01\x01\xff\xff")
"""From brackets to what they add to the depth, as signed bytes."""
_OTHERS = bytes(set(range(256)) - set(_OPENING + _CLOSING + b'"'))


class TooWide(Exception):
    """It holds too much that is not left out.  Caught by whoever reads the answer."""


class Outline:
    """The text as it stands, but each object and array in the outer one is told by its place: `[start,end]`.

    These count bytes, from the beginning of the text.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._depth = 0
        self._in_text = False
        self._at = 0
        self._left_out_from = 0
        self._escape = b""  # a backslash whose other half comes with the next piece

    def __bytes__(self) -> bytes:
        return bytes(self._kept)

    def feed(self, text: bytes) -> None:
        """Take the text's next bytes; raise `TooWide`."""
        for start in range(0, len(text), STRIDE):
            self._take(text[start : start + STRIDE])
        if len(self._kept) > LARGEST:
            raise TooWide

    def _take(self, piece: bytes) -> None:
        piece = self._escape + piece
        self._escape = b"\\" if (len(piece) - len(piece.rstrip(b"\\"))) % 2 else b""
        piece = piece[: len(piece) - len(self._escape)]
        if self._depth < 2 or not self._pass_over(piece):
            self._read(piece)
        self._at += len(piece)

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
        if self._depth + min(accumulate(steps), default=0) < 2:
            return False
        self._depth += sum(steps)
        self._in_text ^= len(parts) % 2 == 0
        return True

    def _read(self, piece: bytes) -> None:
        kept_from = 0
        for token in _TOKEN.finditer(piece):
            mark = token[0]
            if mark == b'"':
                self._in_text = not self._in_text
            elif self._in_text:
                continue
            elif mark in _OPENING:
                self._depth += 1
                if self._depth == 2:
                    self._kept += piece[kept_from : token.start()]
                    self._left_out_from = self._at + token.start()
            elif mark in _CLOSING:
                self._depth -= 1
                if self._depth == 1:
                    self._kept += b"[%d,%d]" % (self._left_out_from, self._at + token.end())
                    kept_from = token.end()
        if self._depth < 2:
            self._kept += piece[kept_from:]
