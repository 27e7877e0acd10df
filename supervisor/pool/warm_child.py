"""Keeps one ready child process for a slot.  Runs in the parent.

The child is replaced when it dies, reaches its job or memory limit, or runs outdated code.  The new child is ready
before the old one is ended, so that a slot does not wait for its start.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from supervisor.concurrency.backoff import Backoff
from supervisor.limits import Limits
from supervisor.pool.child_factory import ChildFactory
from supervisor.process.child import Child, ChildState
from supervisor.process.usage import tree_memory
from supervisor.process.zygote import StartFailed, Zygote
from supervisor.stats import ExitReason

MAX_START_FAILURES = 3
"""Consecutive failures after which a slot gives up, unless some child of the program has ever started."""


class ChildProvider(Protocol):
    """The current zygote and the factory of its children."""

    @property
    def zygote(self) -> Zygote:
        """The current zygote."""

    async def successor_of(self, zygote: Zygote) -> None:
        """Wait until another zygote has replaced `zygote`."""

    @property
    def child_factory(self) -> ChildFactory:
        """Starts and ends children."""


class WarmChild:
    """The current child of one slot."""

    def __init__(self, source: ChildProvider) -> None:
        self._source = source
        self._child: Child | None = None
        self._is_spent = False
        self._is_starting = False
        self._backoff = Backoff(0.1, 30.0)

    @property
    def child(self) -> Child | None:
        """The current child in any state; None if there is none."""
        return self._child

    @property
    def is_starting(self) -> bool:
        """True while a child is being forked."""
        return self._is_starting

    @property
    def is_ready(self) -> bool:
        """True if `get` returns without waiting."""
        return self._child is not None and self._is_usable(self._child)

    async def get(self) -> Child:
        """Return an idle child of the current zygote; raise `StartFailed` if no child of the program ever started."""
        if self.is_ready:
            assert self._child is not None
            return self._child
        try:
            return await self._warm()
        finally:
            self._source.child_factory.settled(self)

    async def _warm(self) -> Child:
        while self._child is None or not self._is_usable(self._child):
            zygote = self._source.zygote
            try:
                await self._replace(zygote)
            except StartFailed as failed:
                if zygote is not self._source.zygote:
                    continue  # the new zygote may succeed
                if not self._source.child_factory.has_started_any and self._backoff.failures >= MAX_START_FAILURES:
                    raise
                wait = self._backoff.next()
                if zygote.is_gone:  # logged once for all slots
                    await self._source.successor_of(zygote)
                else:
                    self._source.child_factory.failed(self, str(failed), wait)
                    await asyncio.sleep(wait)
        return self._child

    def ready_for(self, limits: Limits) -> Child | None:
        """Return the child if a job with `limits` can start in it at once, otherwise None."""
        child = self._child
        return child if child is not None and self._is_usable(child) and not _is_used_up(child, limits) else None

    async def get_for(self, limits: Limits) -> Child:
        """Return a child in which a job with `limits` can start; raise as `get`."""
        self._is_spent = _is_used_up(await self.get(), limits)
        return await self.get()

    def is_reusable(self, limits: Limits) -> bool:
        """True if `recycle` has nothing to do, judged without measuring the child's memory."""
        child = self._child
        return (
            child is not None
            and child.is_idle
            and child.jobs < limits.jobs_per_child
            and limits.max_memory_per_child is None
        )

    async def recycle(self, limits: Limits, why_dead: ExitReason) -> None:
        """Drop the child after a job with `limits` if it is dead or has reached its job or memory limit."""
        child = self._child
        if child is None:
            return
        if not child.is_idle:
            await self.end(why_dead)
        elif child.jobs >= limits.jobs_per_child:
            self._is_spent = True
        elif limits.max_memory_per_child is not None and child.pid is not None:
            kept = await asyncio.to_thread(tree_memory, child.pid, exact_above=limits.max_memory_per_child)
            self._is_spent = kept > limits.max_memory_per_child

    async def end(self, why: ExitReason) -> None:
        """End the child and its descendants."""
        if self._child is not None:
            child, self._child = self._child, None
            await self._source.child_factory.end(child, why)

    def _why_replaced(self, child: Child) -> ExitReason:
        if child.state is ChildState.EXITED:  # while idle
            return "crash"
        return "recycle" if child.zygote is self._source.zygote else "reload"

    def _is_usable(self, child: Child) -> bool:
        return child.is_idle and child.zygote is self._source.zygote and not self._is_spent

    async def _replace(self, zygote: Zygote) -> None:
        old, self._child = self._child, None
        self._is_starting = True
        try:
            self._child = await self._source.child_factory.acquire(zygote)
            self._is_spent = False
            self._backoff.reset()
        finally:
            self._is_starting = False
            if old is not None:
                await self._source.child_factory.end(old, self._why_replaced(old))


def _is_used_up(child: Child, limits: Limits) -> bool:
    """True if earlier jobs make the child unusable: `limits` ask for a fresh one, or their memory would count."""
    keeps_too_much = limits.memory is not None and child.idle_memory > limits.memory
    return child.jobs > 0 and (keeps_too_much or limits.isolation == "fresh")
