"""One sentence, with file and line, for the failed import of a module.  Pure.

Users write the exceptions: text, type and attributes may be of any kind, and reading them may raise.
Tested by tests/child/test_handler_authors.py.
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
    """Return the problem of a module whose import raised `error`.

    It points to the deepest line in the folder of handlers: the line that its authors can mend.
    """
    places = [*_frames(error.__traceback__), *_of_syntax(error)]
    inside = [place for place in places if Path(place[0]).is_relative_to(module.folder)]
    file, line = inside[-1] if inside else (str(module.file), 1)
    try:
        if not inside and isinstance(error, KeyError) and error.args == (module.name,):  # raised by importlib
            return module.problem("it removed itself from sys.modules when it was imported")
        return module.problem(_sentence(error), line, file)
    except BaseException:  # noqa: BLE001 - `__str__` is code of users, which may even call sys.exit
        return module.problem("it raised an exception that cannot be described", line, file)


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno or 1
        trace = trace.tb_next


def _of_syntax(error: BaseException) -> Iterator[tuple[str, int]]:
    """Yield file and line of a syntax error.  Code of users may have set the attributes to objects of any type."""
    if isinstance(error, SyntaxError) and isinstance(error.filename, str) and error.filename:
        yield error.filename, error.lineno if isinstance(error.lineno, int) and error.lineno > 0 else 1


def _sentence(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({value_repr(error.code)}) when it was imported"
    text = str(error.msg) if isinstance(error, SyntaxError) else text_of(error)
    lines = [line for line in text.splitlines() if line.strip()]
    return ": ".join([type_name(error).replace("\n", " "), *lines[:1]])
