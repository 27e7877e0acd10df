"""The place of a slot's child: it holds one that can run a job, and replaces it when it is dead, spent or outdated.

Runs in the parent.  A replacement is ready before the old child is ended, so that a slot never waits for a start
that could have been made before.
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
"""Failures in a row after which a slot gives up, as long as no child at all has ever come up."""


class ChildProvider(Protocol):
    """Where children come from."""

    @property
    def zygote(self) -> Zygote:
        """The current one."""

    async def successor_of(self, zygote: Zygote) -> None:
        """Wait until another one has taken the place of `zygote`."""

    @property
    def child_factory(self) -> ChildFactory:
        """How they begin and end."""


class WarmChild:
    """One child after the other."""

    def __init__(self, source: ChildProvider) -> None:
        self._source = source
        self._child: Child | None = None
        self._is_spent = False
        self._is_starting = False
        self._backoff = Backoff(0.1, 30.0)

    @property
    def child(self) -> Child | None:
        """The one that is here now, in whatever state."""
        return self._child

    @property
    def is_starting(self) -> bool:
        """Whether a child is being forked just now."""
        return self._is_starting

    @property
    def is_ready(self) -> bool:
        """Whether `warm` need not wait."""
        return self._child is not None and self._is_usable(self._child)

    async def get(self) -> Child:
        """A child of the current zygote that waits for a job; raise `StartFailed` when none ever came up."""
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
                    continue  # there is another one by now, which may do better
                if not self._source.child_factory.has_started_any and self._backoff.failures >= MAX_START_FAILURES:
                    raise
                wait = self._backoff.next()
                if zygote.is_gone:  # which is told in one line for all slots
                    await self._source.successor_of(zygote)
                else:
                    self._source.child_factory.failed(self, str(failed), wait)
                    await asyncio.sleep(wait)
        return self._child

    def ready_for(self, limits: Limits) -> Child | None:
        """The one that is here, if a job under `limits` can begin in it at once."""
        child = self._child
        return child if child is not None and self._is_usable(child) and not _is_used_up(child, limits) else None

    async def get_for(self, limits: Limits) -> Child:
        """As `warm`, and a job under `limits` can begin in it."""
        self._is_spent = _is_used_up(await self.get(), limits)
        return await self.get()

    def is_reusable(self, limits: Limits) -> bool:
        """Whether there is nothing to `settle`, without a look at what the child keeps."""
        child = self._child
        return (
            child is not None
            and child.is_idle
            and child.jobs < limits.jobs_per_child
            and limits.max_memory_per_child is None
        )

    async def recycle(self, limits: Limits, why_dead: ExitReason) -> None:
        """After a job under `limits`: a child that is dead or has had enough is not kept."""
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
        """End the child and all that it started."""
        if self._child is not None:
            child, self._child = self._child, None
            await self._source.child_factory.end(child, why)

    def _why_replaced(self, child: Child) -> ExitReason:
        if child.state is ChildState.EXITED:  # while it had nothing to do
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
    """Whether it has run jobs and must not have, or what they have left would count against one under `limits`."""
    keeps_too_much = limits.memory is not None and child.idle_memory > limits.memory
    return child.jobs > 0 and (keeps_too_much or limits.isolation == "fresh")
