"""Outline of a JSON object: its small top-level values, and the positions of its large ones.  Pure; fed in pieces.

An answer of any size is understood while it is received, without holding it in memory.  The outline examines only
quotation marks and brackets; the reader of an omitted value validates it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

MAX_OUTLINE_BYTES = 1024 * 1024
"""Limit of an outline."""
MAX_TEXT_BYTES = 16 * 1024
"""Approximate limit of a string in the outline."""
STRIDE_BYTES = 32 * 1024
"""Bytes examined in one step."""

_TOKEN = re.compile(rb'\\.|["{}\[\]]', re.DOTALL)
_OPENING, _CLOSING = b"{[", b"}]"
_STEPS = bytes.maketrans(_OPENING + _CLOSING, b"\x01\x01\xff\xff")
"""Maps brackets to their change of the depth, as signed bytes."""
_OTHERS = bytes(set(range(256)) - set(_OPENING + _CLOSING + b'"'))


class OutlineTooLarge(Exception):
    """The outline exceeds `MAX_OUTLINE_BYTES`.  Caught by `LargeBody`."""


class Outline:
    """The JSON text with large values replaced by their positions `[start,end]`, in bytes of the whole text.

    Replaces each inner object and array of any size, and each string of more than `MAX_TEXT_BYTES`.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._depth = 0
        self._in_text = False
        self._at = 0
        self._escape = b""  # a backslash at the end of the last piece
        self._began_at = 0  # start of the current or last top-level value
        self._kept_before = 0
        self._is_left_out = False

    def __bytes__(self) -> bytes:
        return bytes(self._kept)

    def feed(self, text: bytes) -> None:
        """Process the next bytes; raise `OutlineTooLarge`."""
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
        """Skip a piece that stays inside an omitted value; return False without effect if it does not.

        Reading it token by token would take a second for 20 MiB of small values.
        """
        if self._in_text and b'"' not in piece:
            return True
        unescaped = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        # Two adjacent quotation marks cancel out, whether they belong to one string or to two.
        bare = unescaped.translate(_STEPS, _OTHERS).replace(b'""', b"")
        parts = bare.split(b'"')
        steps = memoryview(b"".join(parts[self._in_text :: 2])).cast("b")
        # Include the initial depth: a top-level string returns to the outer object when it ends.
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
        """Yield the tokens at which a top-level object, array or string begins (True) or ends (False)."""
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
