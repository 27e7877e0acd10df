"""The limit: aiohttp and uvloop, so many loops at once, each of which claims and completes and does nothing else.

`python -m benchmarks.bare_loop URL [--json]` runs until it is terminated.  As it is, the bodies of its requests are
constants and of an answer it reads the one field that it needs.  With `--json` it is written as aiohttp's own guide
writes a client: bodies are made of dicts for each request, and answers are decoded by aiohttp.
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


async def _claim_and_complete_json(session: aiohttp.ClientSession, jobs: str) -> None:
    wish = {"worker_id": "bare", "queues": ["default"], "actions": ["trivial"], "wait_seconds": 20}
    while True:
        async with session.post(f"{jobs}/claim", json=wish) as claimed:
            job = await claimed.json() if claimed.status == 200 else None
        if job is not None:
            report = {"worker_id": "bare", "attempt": job["attempt"], "status": "completed"}
            async with session.post(f"{jobs}/{job['job_id']}/complete", json=report) as completed:
                await completed.read()


async def _run(url: str, *, as_json: bool) -> None:
    loop = _claim_and_complete_json if as_json else _claim_and_complete
    headers = {"Authorization": "Bearer mbx_bench", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session, asyncio.TaskGroup() as group:
        for _ in range(LOOPS):
            group.create_task(loop(session, f"{url}/v1/projects/bench/jobs"))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(sys.argv[1], as_json="--json" in sys.argv))
