"""The seconds that a zygote takes for some children at once: `python -m benchmarks.nursery HANDLERS CHILDREN OFTEN`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import uvloop

from supervisor.process.child import Child
from supervisor.process.environment import child_environment
from supervisor.process.reaper import Reaper
from supervisor.process.zygote import Zygote, ZygoteConfig


async def _measure(handlers: Path, children: int, often: int) -> None:
    reaper = Reaper()
    zygote = await Zygote.start(ZygoteConfig([handlers], child_environment(os.environ, ())), reaper)
    for _ in range(often):
        began = time.monotonic()
        born = await asyncio.gather(*(Child.start(zygote, reaper) for _ in range(children)))
        print(time.monotonic() - began)
        for child in born:
            await child.kill()
    await zygote.kill()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
