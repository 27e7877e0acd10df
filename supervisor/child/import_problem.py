"""What went wrong when a module was imported, as one sentence with file and line.  Pure.

An exception is users' code: its text, its type and its attributes may be, or raise, anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from supervisor.child.error_text import text_of
from supervisor.child.handler_files import HandlerFile
from supervisor.ipc.messages import Problem
from supervisor.text.value_repr import type_name, value_repr


def import_problem(module: HandlerFile, error: BaseException) -> Problem:
    """Return the problem of a module whose import ended with `error`.

    Its place is the deepest line that the authors of the folder can mend.
    """
    places = [*_frames(error.__traceback__), *_of_syntax(error)]
    inside = [place for place in places if Path(place[0]).is_relative_to(module.folder)]
    file, line = inside[-1] if inside else (str(module.file), 1)
    try:
        if not inside and isinstance(error, KeyError) and error.args == (module.name,):  # importlib misses it then
            return module.problem("it removed itself from sys.modules when it was imported")
        return module.problem(_sentence(error), line, file)
    except BaseException:  # noqa: BLE001 - its text is made by users' code, which may even call sys.exit
        return module.problem("it raised an exception that cannot be described", line, file)


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno or 1
        trace = trace.tb_next


def _of_syntax(error: BaseException) -> Iterator[tuple[str, int]]:
    """Where the source is wrong; attributes that somebody else than the compiler has set may be anything."""
    if isinstance(error, SyntaxError) and isinstance(error.filename, str) and error.filename:
        yield error.filename, error.lineno if isinstance(error.lineno, int) and error.lineno > 0 else 1


def _sentence(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({value_repr(error.code)}) when it was imported"
    text = str(error.msg) if isinstance(error, SyntaxError) else text_of(error)
    lines = [line for line in text.splitlines() if line.strip()]
    return ": ".join([type_name(error).replace("\n", " "), *lines[:1]])
