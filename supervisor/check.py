"""The `check` command: shows what the handler folders offer, and what is wrong with them.

The handlers are imported as for `run`, in a zygote, never in this process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from supervisor.duration import format_duration
from supervisor.exit_code import ExitCode
from supervisor.printable import escaped
from supervisor.process.messages import HandlerInfo, Imported, Problem
from supervisor.process.zygote import import_once

_HEADINGS = ("ACTION", "MODULE", "TIMEOUT", "GRACE", "IDEMPOTENT")


def check_handlers(folders: Sequence[Path], import_timeout: float, pass_env: Sequence[str]) -> ExitCode:
    """Import the handlers in `folders` and print them as a table, and problems on standard error."""
    imported = import_once(folders, import_timeout, pass_env)
    if imported.handlers:
        sys.stdout.write(table(imported.handlers))
    for problem in imported.problems:
        sys.stderr.write(f"{complaint(problem)}\n")
    if not imported.handlers and not imported.problems:
        sys.stderr.write(f"no handler found in {', '.join(map(str, folders))}\n")
    return verdict(imported)


def verdict(imported: Imported) -> ExitCode:
    """Every module must load, and there must be something to run."""
    return ExitCode.DRAINED if imported.handlers and not imported.problems else ExitCode.NO_HANDLER


def table(handlers: Sequence[HandlerInfo]) -> str:
    """One line per handler, sorted by action, in aligned columns."""
    rows = [_HEADINGS, *map(_row, sorted(handlers, key=lambda each: each.action))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def complaint(problem: Problem) -> str:
    """`file:line: message`, as compilers write it, so that editors find the place."""
    return escaped(f"{problem.file}:{problem.line}: {problem.message}")


def _row(handler: HandlerInfo) -> tuple[str, ...]:
    limits = (_length(handler.timeout), _length(handler.cancel_grace), "yes" if handler.idempotent else "no")
    return (escaped(handler.action), escaped(handler.module), *limits)


def _length(seconds: float | None) -> str:
    return "-" if seconds is None else format_duration(seconds)
