"""The limit of open files: the parent uses the hard limit, while children keep the soft limit.

The usual soft limit is 1,024, because select(2) supports no higher descriptors.  Handlers may use select; the parent
does not.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

DESCRIPTORS_PER_WORKER = 5
"""Descriptors that a child needs in the parent: message pipe, output, stack file, pidfd, and a connection."""
PROGRAM_DESCRIPTORS = 64
"""Descriptors that the parent needs for everything else, including some connected operators."""


@contextmanager
def raised() -> Iterator[int]:
    """Raise the soft limit to the hard limit inside the block; yield the old soft limit, which children get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield soft
    finally:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (_bounded(soft, hard), hard))


def shortage(workers: int) -> str | None:
    """Return a warning if this number of children needs more descriptors than this process may open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = PROGRAM_DESCRIPTORS + DESCRIPTORS_PER_WORKER * workers
    if limit == resource.RLIM_INFINITY or needed <= limit:
        return None
    return (
        f"--workers {workers} needs about {needed:,} descriptors; the hard limit is {limit:,}: "
        "raise it (LimitNOFILE= in a unit, `ulimit -Hn` as root), or take fewer workers"
    )


def lower(soft: int) -> None:
    """Set the soft limit of this process and of its future children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_bounded(soft, hard), hard))


def _bounded(soft: int, hard: int) -> int:
    """Return `soft`, or the hard limit if that is lower: an operator may have changed it."""
    if hard == resource.RLIM_INFINITY:
        return soft
    return hard if soft == resource.RLIM_INFINITY else min(soft, hard)
