"""The place of a child: it is replaced, and why the one before has ended is written down."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from supervisor.limits import Limits
from supervisor.pool.child_factory import ChildFactory
from supervisor.pool.warm_child import WarmChild
from supervisor.process.cgroup import Cgroup
from supervisor.process.reaper import Reaper
from supervisor.process.zygote import Zygote
from supervisor.stats import ExitReason, Stats
from tests.process_world import run, world


class Source:
    """One zygote for ever."""

    def __init__(self, zygote: Zygote, family: Reaper) -> None:
        self.zygote = zygote
        self.ledger = Stats()
        self.child_factory = ChildFactory(family, self.ledger)

    async def successor_of(self, zygote: Zygote) -> None:
        raise AssertionError(zygote)

    @property
    def exits(self) -> dict[str, int]:
        return {reason: count for reason, count in self.ledger.child_exits.items() if count}


class Grouped(Reaper):
    """Gives each child a folder that looks like a control group which counts memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def new_cgroup(self) -> Cgroup:
        return Cgroup(self._folder, counts_memory=True)


@asynccontextmanager
async def berthed(family: Reaper | None = None) -> AsyncIterator[tuple[WarmChild, Source]]:
    async with world() as here:
        source = Source(here.zygote, family or here.reaper)
        berth = WarmChild(source)
        try:
            yield berth, source
        finally:
            await berth.end("shutdown")


async def kill_child(berth: WarmChild) -> None:
    child = await berth.get()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()


@pytest.mark.parametrize(
    ("events", "reason"), [("oom 0\noom_kill 0\n", "crash"), ("oom 1\noom_kill 1\n", "oom"), ("", "crash")]
)
@pytest.mark.parametrize("is_after_a_job", [True, False])
async def test_a_death_for_want_of_memory_is_told_from_a_crash(
    tmp_path: Path, events: str, reason: ExitReason, *, is_after_a_job: bool
) -> None:
    async with berthed(Grouped(tmp_path)) as (berth, source):
        (tmp_path / "memory.events").write_text(events)
        await kill_child(berth)
        if is_after_a_job:
            await berth.recycle(Limits(), "crash")
        else:
            (tmp_path / "memory.events").write_text("")
            await berth.get()

        assert source.exits == {reason: 1}


async def test_without_a_control_group_it_is_a_crash() -> None:
    async with berthed() as (berth, source):
        await kill_child(berth)
        await berth.get()

        assert source.exits == {"crash": 1}


async def test_a_fresh_child_is_fit_though_its_slot_was_interrupted_while_the_old_one_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ending = asyncio.Event()

    async def hang(*_: object) -> None:
        ending.set()
        await asyncio.Event().wait()

    async with berthed() as (berth, source):
        old = await berth.get()
        await run(old, "nothing")
        with monkeypatch.context() as patched:
            patched.setattr(source.child_factory, "end", hang)
            task = asyncio.create_task(berth.get_for(Limits(isolation="fresh")))
            await ending.wait()
            task.cancel()
            await asyncio.wait([task])
        fresh = berth.child

        assert fresh not in (None, old)
        assert await berth.get() is fresh
        await old.kill()
