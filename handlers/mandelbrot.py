"""A picture of the Mandelbrot set: a long computation with progress, and bytes as the result."""

from __future__ import annotations

import struct
import zlib
from typing import Annotated

from msgspec import Meta

from supervisor import Context, handler

Pixels = Annotated[int, Meta(ge=1, le=8192)]


@handler("mandelbrot", timeout="30m")
def mandelbrot(
    context: Context, width: Pixels = 640, height: Pixels = 400, iterations: Annotated[int, Meta(ge=1)] = 200
) -> bytes:
    """Draw the Mandelbrot set and return it as a PNG, in shades of grey."""
    rows = [_row(number, width, height, iterations) for number in context.track(range(height))]
    return _png(width, height, rows)


def _row(number: int, width: int, height: int, iterations: int) -> bytes:
    imaginary = 2.4 * (number / height - 0.5)
    return bytes(_shade(complex(3.5 * (x / width) - 2.5, imaginary), iterations) for x in range(width))


def _shade(point: complex, iterations: int) -> int:
    """Return 0 for a point of the set, and a lighter grey the sooner the point escapes."""
    z = 0j
    for count in range(iterations):
        z = z * z + point
        if z.real * z.real + z.imag * z.imag > 4:
            return 255 - 254 * count // iterations
    return 0


def _png(width: int, height: int, rows: list[bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = b"".join(b"\0" + row for row in rows)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
