"""The limit: aiohttp and uvloop, so many loops at once, each of which claims and completes and does nothing else.

`python -m benchmarks.bare_loop URL` runs until it is terminated.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import msgspec
import uvloop

LOOPS = 8
_CLAIM = b'{"worker_id":"bare","queues":["default"],"actions":["trivial"],"wait_seconds":20}'
_COMPLETE = b'{"worker_id":"bare","attempt":1,"status":"completed"}'


class _Claimed(msgspec.Struct):
    job_id: str


async def _claim_and_complete(session: aiohttp.ClientSession, jobs: str) -> None:
    decoder = msgspec.json.Decoder(_Claimed)
    while True:
        async with session.post(f"{jobs}/claim", data=_CLAIM) as claimed:
            body = await claimed.read()
        if claimed.status == 200:
            async with session.post(f"{jobs}/{decoder.decode(body).job_id}/complete", data=_COMPLETE) as completed:
                await completed.read()


async def _run(url: str) -> None:
    headers = {"Authorization": "Bearer mbx_bench", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session, asyncio.TaskGroup() as group:
        for _ in range(LOOPS):
            group.create_task(_claim_and_complete(session, f"{url}/v1/projects/bench/jobs"))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(sys.argv[1]))
