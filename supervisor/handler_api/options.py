"""What a handler's decorator says of its limits, and how that is read.  Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, SupportsIndex, TypedDict

from supervisor.limits import Isolation, Limits
from supervisor.text.duration import format_duration, parse_duration
from supervisor.text.size import parse_size
from supervisor.text.value_repr import value_repr

MAX_LENGTH = 3650 * 86400.0
"""Seconds.  A longer timeout is a slip, and the timers of the event loop count milliseconds in 64 bits."""
MAX_COUNT = 2**31 - 1
"""What a C library takes as a number of threads; and more than there can be of jobs or children."""

Duration = str | float
"""Seconds, or text such as "500ms", "10m" or "1h30m"."""
Size = str | int
"""Bytes, or text such as "512MiB"."""


class HandlerOptions(TypedDict, total=False):
    """The arguments of `@handler`; None, or nothing, leaves each to the settings."""

    timeout: Duration | None
    """Bounds one attempt."""
    cancel_grace: Duration | None
    """How long its cleanup may take once it was asked to stop."""
    idempotent: bool
    """Two attempts may overlap without harm."""
    memory: Size | None
    """Bounds what the job and all that it starts may use."""
    max_concurrent: int | None
    """How many of these jobs run at once."""
    max_jobs_per_child: int | None
    """A child is replaced after so many jobs."""
    max_memory_per_child: Size | None
    """A child is replaced when it keeps more than that."""
    isolation: Isolation
    """With "fresh" each job has a child of its own."""
    nice: int | None
    """Added to the child's niceness."""
    threads: int | None
    """How many threads numeric libraries use."""


def limits_of(stated: HandlerOptions) -> Limits:
    """Raise `TypeError` or `ValueError`, one sentence, for what makes no sense."""
    return Limits(**{what: _reader(what)(what, value) for what, value in stated.items()})


def _reader(what: str) -> Callable[[str, Any], Any]:
    if what not in _READERS:
        raise TypeError(f"there is no limit {what!r}; there are {', '.join(_READERS)}")
    return _READERS[what]


def _timeout(what: str, value: Duration | None) -> float | None:
    length = _length(what, value)
    if length == 0:
        raise ValueError(f"{what} must be more than zero; leave it out for none")
    return length


def _length(what: str, value: Duration | None) -> float | None:
    if value is None:
        return None
    try:
        length = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    if length > MAX_LENGTH:
        raise ValueError(f"{what} is {format_duration(MAX_LENGTH)} at most, not {value_repr(value)}")
    return length


def _size(what: str, value: Size | None) -> int | None:
    if value is None:
        return None
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _count(what: str, value: SupportsIndex | None) -> int | None:
    return None if value is None else _whole(what, value, "from 1 on", range(1, MAX_COUNT + 1))


def _niceness(what: str, value: SupportsIndex | None) -> int | None:
    return None if value is None else _whole(what, value, "from 0 to 19", range(20))


def _whole(what: str, value: SupportsIndex, span: str, allowed: range) -> int:
    """Return what is an integer to Python, as NumPy's are, as a plain `int`; but a truth value is a slip."""
    try:
        number = None if isinstance(value, bool) else int(operator.index(value))
    except TypeError:
        number = None
    if number is None or number not in allowed:
        raise ValueError(f"{what} is a whole number {span}, not {value_repr(value)}")
    return number


def _isolation(what: str, value: Isolation) -> Isolation:
    for known in _ISOLATIONS:  # the one that is known is returned: a subclass of str is no text to the parent
        if isinstance(value, str) and value == known:
            return known
    raise ValueError(f"{what} is 'shared' or 'fresh', not {value_repr(value)}")


def _flag(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{what} is True or False, not {value_repr(value)}")
    return value


_ISOLATIONS: tuple[Isolation, ...] = ("shared", "fresh")
_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "timeout": _timeout,
    "cancel_grace": _length,
    "idempotent": _flag,
    "memory": _size,
    "max_concurrent": _count,
    "max_jobs_per_child": _count,
    "max_memory_per_child": _size,
    "isolation": _isolation,
    "nice": _niceness,
    "threads": _count,
}
