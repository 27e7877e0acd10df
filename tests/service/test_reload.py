"""What takes a while is done once at a time, and once more for all who ask meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from supervisor.concurrency.helpers import HelperTasks
from supervisor.service.reload import CoalescingQueue


class Work:
    """Done when it is told to be; remembers for whom it was begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ends: asyncio.Queue[str | None] = asyncio.Queue()
        self.requests = CoalescingQueue(self._do, at_the_end="it is over")

    async def _do(self, by: str) -> str | None:
        self.begun.append(by)
        return await self.ends.get()


@asynccontextmanager
async def working() -> AsyncIterator[Work]:
    work = Work()
    async with asyncio.timeout(5), HelperTasks() as beside:
        beside.start(work.requests.run)
        yield work


async def test_who_asks_is_told_how_it_went() -> None:
    async with working() as work:
        work.ends.put_nowait("not today")
        assert await work.requests.ask("somebody") == "not today"

        work.ends.put_nowait(None)
        assert await work.requests.ask("somebody") is None


async def test_all_who_ask_meanwhile_share_one_more() -> None:
    async with working() as work:
        first = work.requests.ask("first")
        while not work.begun:
            await asyncio.sleep(0)
        later = [work.requests.ask(name) for name in ("second", "third")]
        work.ends.put_nowait("one")
        work.ends.put_nowait("two")

        assert await first == "one"
        assert [await answer for answer in later] == ["two", "two"]
        assert work.begun == ["first", "second"]


async def test_nobody_waits_beyond_the_end() -> None:
    async with working() as work:
        begun = work.requests.ask("first")
        while not work.begun:
            await asyncio.sleep(0)
        waiting = work.requests.ask("second")

    assert (await begun, await waiting) == ("it is over", "it is over")


async def test_who_gives_up_waiting_disturbs_nobody() -> None:
    async with working() as work:
        work.requests.ask("first").cancel()
        work.ends.put_nowait(None)
        second = work.requests.ask("second")
        work.ends.put_nowait(None)

        assert await second is None
