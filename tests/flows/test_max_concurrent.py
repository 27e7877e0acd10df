"""Handlers that allow few jobs at once: claims go on beside them, and it is told when there is nothing to claim for."""

from __future__ import annotations

from pathlib import Path

import structlog.testing
from aiohttp import ClientSession

from supervisor.devserver.app import DevServer
from tests.harness import calls, event, finished_job, start_job, supervising
from tests.process_world import module

CAPPED = """
    import time
    from supervisor import handler

    @handler("only", max_concurrent=1)
    def only(context, seconds: float = 0.0) -> None:
        context.emit("working", {})
        time.sleep(seconds)
"""


async def test_claims_go_on_after_polls_have_come_back_empty(server: DevServer, state: Path, tmp_path: Path) -> None:
    handlers = str(module(tmp_path / "capped", CAPPED))
    async with supervising(server, state, handlers=handlers, workers="4", wait_seconds="1"):
        await finished_job(server, await start_job(server, "only"))  # now two polls may be open at once
        asked = len(calls(server, "claim"))
        await server.until(lambda: len(calls(server, "claim")) >= asked + 3)

        job = await finished_job(server, await start_job(server, "only"))

    assert job.status == "completed"


async def test_that_every_handler_is_at_its_limit_is_told_and_is_no_illness(
    server: DevServer, state: Path, tmp_path: Path
) -> None:
    handlers = str(module(tmp_path / "capped", CAPPED))
    listening = {"handlers": handlers, "workers": "3", "listen": "127.0.0.1:0"}
    with structlog.testing.capture_logs() as logged:
        async with supervising(server, state, **listening), ClientSession() as client:
            run = await start_job(server, "only", {"seconds": 1.0})
            await event(server, run, "working")
            (page,) = [line["page"] for line in logged if line["event"] == "listening"]
            async with client.get(f"{page}status.json") as answer:
                claims = (await answer.json())["claims"]
            await finished_job(server, run)

    assert claims["open_polls"] == 0
    assert claims["reason"] == "every handler runs as many jobs as its max_concurrent allows"
