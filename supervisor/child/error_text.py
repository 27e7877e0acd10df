"""The text and traceback of an exception that may be malformed.  Pure; runs in the zygote and in children.

Python's `traceback` raises for odd attributes of a `SyntaxError`, and is slow for groups of thousands of exceptions.
No function here raises, and every text is bounded.  Tested by tests/process/test_child.py.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Set
from types import TracebackType

MAX_TYPE_CHARS = 64
"""Characters of an error type: the server expects a short token, but a class name may have any length."""
_MAX_EXCEPTIONS = 64
"""Causes, contexts, members and notes of an exception up to which Python's `traceback` formats it."""
_MAX_FRAMES = 50
_MAX_TEXT_CHARS = 16 * 1024
"""Characters of the text of an exception."""


def describe(error: BaseException, files_above: Set[str], max_bytes: int) -> str:
    """Return the text of the error and the end of its traceback; `files_above` are the callers of the handler."""
    trace = traceback_of(error, _below(error.__traceback__, files_above))
    head = text_of(error).encode("utf-8", "backslashreplace")[: max_bytes // 2]
    tail = trace.rstrip().encode("utf-8", "backslashreplace")[-(max_bytes - len(head) - 2) :]
    return (head + b"\n\n" + tail).decode("utf-8", "ignore")


def type_of(error: BaseException) -> str:
    """Return the name of the class, even if a metaclass hides it."""
    name = _attempt(lambda: type.__dict__["__name__"].__get__(type(error)), "Exception")
    return name[:MAX_TYPE_CHARS].encode("utf-8", "backslashreplace").decode()


def text_of(error: BaseException) -> str:
    """Return the text of the error, or a substitute if `__str__` fails."""
    return _attempt(lambda: str(error)[:_MAX_TEXT_CHARS], "(its text cannot be shown)")


def traceback_of(error: BaseException, trace: TracebackType | None) -> str:
    """Return the traceback of the error, from `trace` on; a short one if Python cannot format the error."""
    if _is_small(error):
        full = _attempt(lambda: "".join(traceback.format_exception(type(error), error, trace)), "")
        if full:
            return full
    frames = _attempt(lambda: "".join(traceback.format_list(traceback.extract_tb(trace, limit=-_MAX_FRAMES))), "")
    return f"Traceback (most recent call last):\n{frames}{type_of(error)}: {text_of(error)}"


def is_made_of(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """True if the error is of these types, or an exception group with no other leaves, at any depth."""
    waiting = [error]
    while waiting:
        part = waiting.pop()
        if isinstance(part, BaseExceptionGroup):
            waiting.extend(BaseExceptionGroup.exceptions.__get__(part))
        elif not isinstance(part, kinds):
            return False
    return True


def _below(trace: TracebackType | None, files_above: Set[str]) -> TracebackType | None:
    """Return the part of a traceback below the last frame of these files: the frames of the handler."""
    below = trace
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in files_above:
            below = trace.tb_next
        trace = trace.tb_next
    return below


def _is_small(error: BaseException) -> bool:
    """True if `traceback` can format the error with its causes and members quickly.  These may contain cycles."""
    waiting, seen = [error], set[int]()
    left = _MAX_EXCEPTIONS
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        notes = _attempt_any(lambda part=part: part.__notes__)  # type: ignore[misc]  # mypy knows no defaults here
        left -= 1 + (len(notes) if isinstance(notes, list | tuple) else 0)
        inner = BaseExceptionGroup.exceptions.__get__(part) if isinstance(part, BaseExceptionGroup) else ()
        if left < 0 or len(inner) > left:
            return False
        chained = (BaseException.__dict__[name].__get__(part) for name in ("__cause__", "__context__"))
        waiting += [*inner, *(other for other in chained if other is not None)]
    return True


def _attempt(make: Callable[[], object], otherwise: str) -> str:
    text = _attempt_any(make)
    return str.__str__(text) if isinstance(text, str) else otherwise


def _attempt_any(make: Callable[[], object]) -> object:
    try:
        return make()
    except BaseException:  # noqa: BLE001 - code of users may raise anything
        return None
