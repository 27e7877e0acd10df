"""The `check` command: lists the handlers in the handler folders and their problems.

Handlers are imported in a zygote, as for `run`, never in this process.  What they start is killed afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from supervisor.exit_code import ExitCode
from supervisor.ipc.messages import HandlerInfo, Imported
from supervisor.limits import Limits
from supervisor.process.zygote import StartFailed, import_once
from supervisor.text.columns import aligned
from supervisor.text.duration import format_duration
from supervisor.text.printable import escaped, shown_name
from supervisor.text.size import format_size

_HEADINGS = ("ACTION", "MODULE", "TIMEOUT", "GRACE", "MEMORY", "CONCURRENT", "OTHER LIMITS")


def check_handlers(folders: Sequence[Path], import_timeout: float, pass_env: Sequence[str]) -> ExitCode:
    """Import the handlers in `folders`; print them as a table and their problems on standard error."""
    try:
        imported = import_once(folders, import_timeout, pass_env)
    except StartFailed as error:
        click.echo(f"the handlers cannot be imported: {escaped(str(error))}", err=True)
        return ExitCode.NO_HANDLER
    if imported.handlers:
        click.echo(table(imported.handlers))
    for line in complaints(imported):
        click.echo(line, err=True)
    if not imported.handlers and not imported.problems:
        click.echo(f"no handler found in {', '.join(map(str, folders))}", err=True)
    return verdict(imported)


def verdict(imported: Imported) -> ExitCode:
    """Return success if there is a handler and every module could be imported."""
    return ExitCode.DRAINED if imported.handlers and not imported.problems else ExitCode.NO_HANDLER


def table(handlers: Sequence[HandlerInfo]) -> str:
    """Return a table with one line per handler, sorted by action."""
    return aligned([_HEADINGS, *map(_row, sorted(handlers, key=lambda each: each.action))])


def complaints(imported: Imported) -> list[str]:
    """Return the problems, whose handlers are not served, and the warnings."""
    problems = [problem.located_message for problem in imported.problems]
    return [escaped(line) for line in [*problems, *(f"warning: {warning}" for warning in imported.warnings)]]


def _row(handler: HandlerInfo) -> tuple[str, ...]:
    limits = handler.limits
    memory = "-" if limits.memory is None else format_size(limits.memory)
    return (
        shown_name(handler.action),
        shown_name(handler.module),
        _length(limits.timeout),
        _length(limits.cancel_grace),
        memory,
        "-" if limits.max_concurrent is None else str(limits.max_concurrent),
        ", ".join(_others(limits)) or "-",
    )


def _others(limits: Limits) -> Iterator[str]:
    if limits.idempotent:
        yield "idempotent"
    if limits.isolation == "fresh":
        yield "fresh child"
    if limits.max_jobs_per_child is not None:
        yield f"{limits.max_jobs_per_child} jobs per child"
    if limits.max_memory_per_child is not None:
        yield f"{format_size(limits.max_memory_per_child)} per child"
    if limits.nice is not None:
        yield f"nice {limits.nice}"
    if limits.threads is not None:
        yield f"{limits.threads} threads"


def _length(seconds: float | None) -> str:
    return "-" if seconds is None else format_duration(seconds)
