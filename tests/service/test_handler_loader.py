from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from supervisor.process.reaper import Reaper
from supervisor.service.handler_loader import HandlerLoader
from tests.harness import GENEROUS
from tests.process_world import module, nursery

WORKS = "from supervisor import handler\nhandler('a')(lambda: None)"


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(GENEROUS):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_a_zygote_that_does_not_come_back_is_an_outage_until_it_does(tmp_path: Path) -> None:
    family = Reaper()
    code = HandlerLoader(nursery(module(tmp_path, WORKS)), family)
    await code.load()
    keeping = asyncio.create_task(code.keep_alive(lambda _: None))
    assert code.status.outage is None

    module(tmp_path, "raise OSError('no disk')")
    os.kill(code.zygote.pid, signal.SIGKILL)
    await until(lambda: "no disk" in (code.status.outage or ""))
    module(tmp_path, WORKS)
    await until(lambda: code.status.outage is None)

    keeping.cancel()
    await asyncio.wait([keeping])
    await code.close()
    await family.kill_orphans()
