"""Children are born and ended here, and one waits in reserve."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from supervisor import births as births_module
from supervisor.births import Births
from supervisor.ledger import Ledger
from supervisor.process.child import Child
from supervisor.process.zygote import Zygote
from tests.harness import GENEROUS, is_alive
from tests.process_world import World, module, nursery, world


@pytest.fixture(autouse=True)
def _no_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(births_module, "CALM", 0.0)


@asynccontextmanager
async def keeping(here: World) -> AsyncIterator[tuple[Births, Ledger]]:
    """Births that keep a child in reserve inside the block."""
    ledger = Ledger()
    births = Births(here.family, ledger)
    keeper = asyncio.create_task(births.keep_one_ready())
    try:
        yield births, ledger
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


async def reserve_of(births: Births, fit: Callable[[Child], bool] = lambda _: True) -> Child:
    async with asyncio.timeout(GENEROUS):
        while births._reserve is None or not fit(births._reserve):
            await asyncio.sleep(0.001)
    return births._reserve


def exits(ledger: Ledger) -> dict[str, int]:
    return {reason: count for reason, count in ledger.child_exits.items() if count}


async def test_nothing_is_born_before_somebody_wants_a_child() -> None:
    async with world() as here, keeping(here) as (births, _):
        await asyncio.sleep(0.05)

        assert not births.has_borne


async def test_the_second_child_is_there_already_and_a_third_one_is_born() -> None:
    async with world() as here, keeping(here) as (births, ledger):
        first = await births.child_of(here.zygote)
        reserve = await reserve_of(births)

        assert await births.child_of(here.zygote) is reserve
        assert await reserve_of(births) not in (first, reserve)

        assert births.has_borne
        assert sum(ledger.child_start_seconds.counts) == 3


async def test_a_reserve_with_old_code_is_replaced() -> None:
    async with world() as here, keeping(here) as (births, ledger):
        await births.child_of(here.zygote)
        old = await reserve_of(births)
        zygote = await Zygote.start(nursery(), here.family)
        try:
            child = await births.child_of(zygote)
            new = await reserve_of(births, lambda reserve: reserve is not old)

            assert {child.zygote, new.zygote} == {zygote}
            assert old.pid is not None
            assert not is_alive(old.pid)
            assert exits(ledger) == {"reload": 1}
        finally:
            await zygote.kill()


async def test_a_reserve_that_died_is_given_to_nobody() -> None:
    async with world() as here, keeping(here) as (births, ledger):
        await births.child_of(here.zygote)
        reserve = await reserve_of(births)
        assert reserve.pid is not None
        os.kill(reserve.pid, signal.SIGKILL)
        await reserve.wait()

        assert (await births.child_of(here.zygote)).is_idle
        assert (await reserve_of(births, lambda child: child.is_idle)) is not reserve
        assert exits(ledger) == {"crash": 1}


async def test_the_end_leaves_no_reserve() -> None:
    async with world() as here:
        async with keeping(here) as (births, ledger):
            await births.child_of(here.zygote)
            reserve = await reserve_of(births)

        assert reserve.pid is not None
        assert not is_alive(reserve.pid)
        assert exits(ledger) == {"shutdown": 1}


async def test_a_reserve_that_cannot_be_born_is_tried_again_after_the_next_child(tmp_path: Path) -> None:
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
        await births.child_of(here.zygote)
        async with asyncio.timeout(GENEROUS):
            while not (tmp_path / "failed").exists():
                await asyncio.sleep(0.001)

        await births.child_of(here.zygote)
        await reserve_of(births)

        assert sum(ledger.child_start_seconds.counts) == 3
