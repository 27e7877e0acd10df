"""Tables for terminals.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.text.printable import shortened


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """One line per row, the cells of a column below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


Narrowing = Sequence[tuple[str, int]]
"""Headings, and how many characters their columns keep; with none a column is left out."""


def fitted(rows: Sequence[Sequence[str]], width: int, narrowing: Narrowing) -> str:
    """As `aligned`, below headings, with as many steps of the narrowing as it takes to have lines of `width`."""
    columns = dict(zip(rows[0], zip(*rows, strict=True), strict=True))
    for heading, kept in narrowing:
        if sum(max(map(len, column)) + 2 for column in columns.values()) - 2 <= width:
            break
        if kept:
            columns[heading] = tuple(shortened(cell, kept) for cell in columns[heading])
        else:
            del columns[heading]
    return aligned(list(zip(*columns.values(), strict=True)))
