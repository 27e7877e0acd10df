"""A stop of our own that comes when the handler has ended changes nothing of what is reported."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from aiohttp import web

from supervisor.devserver.app import DevServer
from supervisor.devserver.call_log import Call
from supervisor.exit_code import ExitCode
from tests.harness import calls, finished_job, reports, start_job, supervising
from tests.process_world import module

ENDS = """
    import os, signal
    from supervisor import handler

    @handler("raises", timeout="300ms")
    def raises(context) -> None:
        context.emit("last", {})
        raise ValueError("of its own")

    @handler("crashes", timeout="300ms")
    def crashes(context) -> None:
        context.emit("last", {})
        os.kill(os.getpid(), signal.SIGSEGV)
"""


def hold_up_events(server: DevServer) -> asyncio.Event:
    """No event is accepted until this is set."""
    let_through = asyncio.Event()

    async def intercept(call: Call) -> web.StreamResponse | None:
        if call.name == "events":
            await let_through.wait()
        return None

    server.intercept = intercept
    return let_through


@pytest.mark.parametrize(("action", "error_type"), [("raises", "ValueError"), ("crashes", "ChildDied")])
async def test_how_a_handler_ended_is_reported_though_its_events_are_held_up_past_its_timeout_and_a_shutdown(
    server: DevServer, state: Path, tmp_path: Path, action: str, error_type: str
) -> None:
    handlers = str(module(tmp_path / "ending", ENDS))
    async with supervising(server, state, handlers=handlers, workers="1") as supervisor:
        let_through = hold_up_events(server)
        run = await start_job(server, action)
        await server.until(lambda: calls(server, "events") or None)
        await asyncio.sleep(0.5)  # its time is over meanwhile
        supervisor.signal(signal.SIGQUIT)
        await asyncio.sleep(0.1)
        let_through.set()
        job = await finished_job(server, run)
        code = await supervisor.exit_code()

    assert [report.body["error_type"] for report in reports(server, job.id)] == [error_type]
    assert code is ExitCode.DRAINED
