"""The text of an exception, whatever its author has made of it.  Pure; in the zygote and in children.

Python's own `traceback` raises for odd attributes of a `SyntaxError`, and takes long for groups of many thousand
exceptions.  Nothing here raises, and every text is bounded.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Set
from types import TracebackType

LONGEST_TYPE = 64
"""Characters of an error type, which is a short token to the server; a class may have a name of any length."""
_MOST_EXCEPTIONS = 64
"""Exceptions behind and inside of one, and notes on it, that are written with Python's own `traceback`."""
_MOST_FRAMES = 50
_LONGEST_TEXT = 16 * 1024
"""Characters of what a `__str__` returns."""


def describe(error: BaseException, around: Set[str], limit: int) -> str:
    """The error's text and the end of its traceback, in `limit` bytes; `around` names files above the handler."""
    trace = traceback_of(error, _below(error.__traceback__, around))
    head = text_of(error).encode("utf-8", "backslashreplace")[: limit // 2]
    tail = trace.rstrip().encode("utf-8", "backslashreplace")[-(limit - len(head) - 2) :]
    return (head + b"\n\n" + tail).decode("utf-8", "ignore")


def type_of(error: BaseException) -> str:
    """The name of its class, also where a metaclass hides it."""
    name = _attempt(lambda: type.__dict__["__name__"].__get__(type(error)), "Exception")
    return name[:LONGEST_TYPE].encode("utf-8", "backslashreplace").decode()


def text_of(error: BaseException) -> str:
    """What its `__str__` returns."""
    return _attempt(lambda: str(error)[:_LONGEST_TEXT], "(its text cannot be shown)")


def traceback_of(error: BaseException, trace: TracebackType | None) -> str:
    """Its traceback, `trace` being the part to show; a short one where Python cannot write it."""
    if _is_small(error):
        full = _attempt(lambda: "".join(traceback.format_exception(type(error), error, trace)), "")
        if full:
            return full
    frames = _attempt(lambda: "".join(traceback.format_list(traceback.extract_tb(trace, limit=-_MOST_FRAMES))), "")
    return f"Traceback (most recent call last):\n{frames}{type_of(error)}: {text_of(error)}"


def is_made_of(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether it is one of these kinds, or a group of nothing else, however deep."""
    waiting = [error]
    while waiting:
        part = waiting.pop()
        if isinstance(part, BaseExceptionGroup):
            waiting.extend(BaseExceptionGroup.exceptions.__get__(part))
        elif not isinstance(part, kinds):
            return False
    return True


def _below(trace: TracebackType | None, around: Set[str]) -> TracebackType | None:
    """What is below the last frame of these files in a traceback: the handler's own part."""
    below = trace
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in around:
            below = trace.tb_next
        trace = trace.tb_next
    return below


def _is_small(error: BaseException) -> bool:
    """Whether there is little enough behind and inside of it; anything may be there, cycles too."""
    waiting, seen = [error], set[int]()
    left = _MOST_EXCEPTIONS
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
        behind = (BaseException.__dict__[name].__get__(part) for name in ("__cause__", "__context__"))
        waiting += [*inner, *(other for other in behind if other is not None)]
    return True


def _attempt(make: Callable[[], object], otherwise: str) -> str:
    text = _attempt_any(make)
    return str.__str__(text) if isinstance(text, str) else otherwise


def _attempt_any(make: Callable[[], object]) -> object:
    try:
        return make()
    except BaseException:  # noqa: BLE001 - users' code, which may raise what it likes
        return None
