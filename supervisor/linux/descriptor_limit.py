"""How many descriptors the parent may open: up to the hard limit, while children keep the soft one.

The usual soft limit is 1,024, for programs that use select(2), which knows no higher descriptors; handlers may, and the
parent does not.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

PER_WORKER = 5
"""Descriptors that a child needs in the parent: message pipe, output, stack file, pidfd, and a connection."""
FOR_THE_PROGRAM = 64
"""Descriptors that the parent needs besides, with some operators connected."""


@contextmanager
def raised() -> Iterator[int]:
    """Raise the soft limit to the hard one inside the block; yield the soft one of before, which is for children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield soft
    finally:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (_lower(soft, hard), hard))


def misfit(workers: int) -> str | None:
    """Return a sentence if so many children need more descriptors than this process may open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FOR_THE_PROGRAM + PER_WORKER * workers
    if limit == resource.RLIM_INFINITY or needed <= limit:
        return None
    return (
        f"--workers {workers} needs about {needed:,} descriptors; the hard limit is {limit:,}: "
        "raise it (LimitNOFILE= in a unit, `ulimit -Hn` as root), or take fewer workers"
    )


def lower(soft: int) -> None:
    """Give this process, and what it starts, the soft limit `soft`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_lower(soft, hard), hard))


def _lower(soft: int, hard: int) -> int:
    """`soft`, unless the hard limit, which an operator may have changed meanwhile, is lower."""
    if hard == resource.RLIM_INFINITY:
        return soft
    return hard if soft == resource.RLIM_INFINITY else min(soft, hard)
