"""Digits of pi, written to a file: a handler with a working directory, cleanup, and a custom event."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from msgspec import Meta

from supervisor import Context, handler


@handler("digits-of-pi", timeout="1h")
def digits_of_pi(context: Context, count: Annotated[int, Meta(ge=1)] = 1000) -> str:
    """Return the first digits of pi, the 3 included."""
    file = context.workdir / "digits.txt"
    with file.open("w") as digits:
        # A stop request raises Cancelled in this block.  The `with` closes the file, and the worker deletes the folder.
        for digit in context.track(islice(_digits(), count), total=count):
            digits.write(str(digit))
    context.emit("pi.written", {"bytes": file.stat().st_size})
    return file.read_text()


def _digits() -> Iterator[int]:
    """Yield the digits one by one, without end (J. Gibbons, Unbounded Spigot Algorithms for the Digits of Pi, 2006)."""
    q, r, t, k, n, m = 1, 0, 1, 1, 3, 3
    while True:
        if 4 * q + r - t < n * t:
            yield n
            q, r, n = 10 * q, 10 * (r - n * t), 10 * (3 * q + r) // t - 10 * n
        else:
            q, r, t, k, n, m = q * k, (2 * q + r) * m, t * m, k + 1, (q * (7 * k + 2) + r * m) // (t * m), m + 2
