"""Children are born and ended here, and one is spare."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog.testing
from structlog.testing import capture_logs

from supervisor.pool import child_factory as births_module
from supervisor.pool.child_factory import ChildFactory
from supervisor.process.child import Child
from supervisor.process.reaper import Reaper
from supervisor.process.zygote import StartFailed, Zygote
from supervisor.stats import Stats
from tests.harness import GENEROUS, is_alive
from tests.process_world import World, module, nursery, world


@pytest.fixture(autouse=True)
def _no_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(births_module, "SPARE_DELAY", 0.0)


@asynccontextmanager
async def keeping(here: World) -> AsyncIterator[tuple[ChildFactory, Stats]]:
    """Births that keep a spare child inside the block."""
    ledger = Stats()
    births = ChildFactory(here.reaper, ledger)
    keeper = asyncio.create_task(births.maintain_spare())
    try:
        yield births, ledger
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


async def spare_of(births: ChildFactory, fit: Callable[[Child], bool] = lambda _: True) -> Child:
    async with asyncio.timeout(GENEROUS):
        while births._spare is None or not fit(births._spare):
            await asyncio.sleep(0.001)
    return births._spare


def exits(ledger: Stats) -> dict[str, int]:
    return {reason: count for reason, count in ledger.child_exits.items() if count}


async def test_nothing_is_born_before_somebody_wants_a_child() -> None:
    async with world() as here, keeping(here) as (births, _):
        await asyncio.sleep(0.05)

        assert not births.has_started_any


async def test_the_second_child_is_there_already_and_a_third_one_is_born() -> None:
    async with world() as here, keeping(here) as (births, ledger):
        first = await births.acquire(here.zygote)
        spare = await spare_of(births)

        assert await births.acquire(here.zygote) is spare
        assert await spare_of(births) not in (first, spare)

        assert births.has_started_any
        assert sum(ledger.child_start_seconds.counts) == 3


async def test_a_spare_with_old_code_is_replaced() -> None:
    async with world() as here, keeping(here) as (births, ledger):
        await births.acquire(here.zygote)
        old = await spare_of(births)
        zygote = await Zygote.start(nursery(), here.reaper)
        try:
            child = await births.acquire(zygote)
            new = await spare_of(births, lambda spare: spare is not old)

            assert {child.zygote, new.zygote} == {zygote}
            assert old.pid is not None
            assert not is_alive(old.pid)
            assert exits(ledger) == {"reload": 1}
        finally:
            await zygote.kill()


async def test_a_spare_that_died_is_given_to_nobody() -> None:
    async with world() as here, keeping(here) as (births, ledger):
        await births.acquire(here.zygote)
        spare = await spare_of(births)
        assert spare.pid is not None
        os.kill(spare.pid, signal.SIGKILL)
        await spare.wait()

        assert (await births.acquire(here.zygote)).is_idle
        assert (await spare_of(births, lambda child: child.is_idle)) is not spare
        assert exits(ledger) == {"crash": 1}


async def test_the_end_leaves_no_spare() -> None:
    async with world() as here:
        async with keeping(here) as (births, ledger):
            await births.acquire(here.zygote)
            spare = await spare_of(births)

        assert spare.pid is not None
        assert not is_alive(spare.pid)
        assert exits(ledger) == {"shutdown": 1}


async def test_a_spare_that_cannot_be_born_is_tried_again_after_the_next_child(tmp_path: Path) -> None:
    source = f"""
    import os
    from pathlib import Path
    from supervisor import handler
    handler("a")(lambda: None)
    zygote, fork, forks = os.getpid(), os.fork, []

    def second_time_failing():
        if os.getpid() == zygote:
            forks.append(1)
            if len(forks) == 2:
                Path({str(tmp_path / "failed")!r}).touch()
                raise OSError(11, "Resource temporarily unavailable")
        return fork()

    os.fork = second_time_failing
    """
    async with world(module(tmp_path, source)) as here, keeping(here) as (births, ledger):
        await births.acquire(here.zygote)
        async with asyncio.timeout(GENEROUS):
            while not (tmp_path / "failed").exists():
                await asyncio.sleep(0.001)

        await births.acquire(here.zygote)
        await spare_of(births)

        assert sum(ledger.child_start_seconds.counts) == 3


async def test_a_reload_replaces_the_spare_though_nobody_takes_a_child() -> None:
    async with world() as here, keeping(here) as (births, ledger):
        await births.acquire(here.zygote)
        old = await spare_of(births)
        zygote = await Zygote.start(nursery(), here.reaper)
        try:
            births.use(zygote)

            assert (await spare_of(births, lambda spare: spare is not old)).zygote is zygote
            assert exits(ledger) == {"reload": 1}
        finally:
            await zygote.kill()


async def test_a_spare_that_is_not_born_in_time_leaves_the_zygote_alone() -> None:
    async with world() as here:
        os.kill(here.zygote.pid, signal.SIGSTOP)
        try:
            with pytest.raises(StartFailed, match="was not ready"):
                await Child.start(here.zygote, here.reaper, deadline=0.05, is_spare=True)
        finally:
            os.kill(here.zygote.pid, signal.SIGCONT)

        assert (await here.child()).is_idle


@pytest.mark.parametrize("error", [StartFailed("no room"), ValueError("a bug")])
async def test_a_spare_that_cannot_be_born_is_told_of_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(*_: object, **__: object) -> None:
        tries.append(error)
        raise error

    tries: list[Exception] = []
    monkeypatch.setattr(ChildFactory, "_replace_spare", fail)
    async with world() as here, keeping(here) as (births, _):
        with structlog.testing.capture_logs() as logged:
            for count in (1, 2):
                await (await births.acquire(here.zygote)).kill()
                async with asyncio.timeout(GENEROUS):
                    while len(tries) < count:
                        await asyncio.sleep(0.001)

    told = [line for line in logged if line["event"] == "no spare child"]
    assert len(told) == (1 if isinstance(error, StartFailed) else 2)


def test_slots_without_a_child_are_one_line_for_one_reason() -> None:
    births = ChildFactory(Reaper(), Stats())

    with capture_logs() as logged:
        for _ in range(3):
            for slot in (1, 2):
                births.failed(slot, "no descriptors", 1.0)
        shortage = births.shortage
        births.settled(1)
        births.failed(2, "no memory", 1.0)
        births.settled(2)

    assert shortage == "2 without a child: no descriptors"
    assert births.shortage is None
    assert [line["event"] for line in logged] == [
        "no child for a slot",
        "no child for a slot",
        "no slot is without a child any more",
    ]
