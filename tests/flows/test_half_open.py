"""The other end vanishes without a word: connections that look open and lead nowhere."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.call_log import Call
from supervisor.exit_code import ExitCode
from tests.cable import Cable
from tests.flows.test_chaos import AGAIN
from tests.flows.test_hostile import logged, until
from tests.flows.test_lease_loss import ended
from tests.harness import (
    GENEROUS,
    calls,
    event,
    field_of,
    finished_job,
    program,
    reports,
    start_job,
    supervising,
    timed,
)

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # the program runs in a process of its own


@pytest.mark.root("newer kernels let only root filter what a TCP socket receives")
async def test_a_short_silence_of_the_network_is_not_noticed_by_the_job(server: DevServer, state: Path) -> None:
    async with Cable(server.url) as cable, program(cable.url, state, lease_ttl="15s") as process:
        run = await start_job(server, "sleeps", {"seconds": 2.0})
        await server.until(lambda: calls(server, "heartbeat") or None, timeout=GENEROUS)
        cable.cut()
        await until(lambda: logged(state).count("heartbeat failed") >= 2)
        cable.mend()
        job = await finished_job(server, run)
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), GENEROUS)

    assert (job.status, job.attempt, code) == ("completed", 1, ExitCode.DRAINED)
    assert [call.status for call in reports(server, job.id)][-1] == 204


@pytest.mark.root("newer kernels let only root filter what a TCP socket receives")
async def test_a_long_silence_of_the_network_ends_the_job_and_work_goes_on_after_it(state: Path) -> None:
    def is_claimed_again(job: Any) -> bool:
        return (job.status, job.attempt) == ("claimed", 2)

    settings = DevServerSettings(heartbeat_interval=0.2, lease_ttl=1, journal=True)
    async with (
        DevServer(settings) as server,
        Cable(server.url) as cable,
        program(cable.url, state, lease_ttl="1s", workers="1"),
    ):
        run = await start_job(server, "python-loop", retry=AGAIN)
        working = await event(server, run, "working")
        end = asyncio.create_task(ended(working["pids"]))
        cut_at = time.monotonic()
        cable.cut()
        died_at = await end
        cable.mend()
        # The server, too, took the job for lost.
        await server.until(lambda: is_claimed_again(server.jobs(run)[0]), timeout=GENEROUS)

    # The last accepted beat was sent at most one interval (200 ms) before the cable was cut.
    assert 0.7 < died_at - cut_at < GENEROUS
    assert calls(server, "complete") == []


@pytest.mark.root("newer kernels let only root filter what a TCP socket receives")
async def test_sigterm_ends_a_program_whose_network_is_silent(server: DevServer, state: Path) -> None:
    async with Cable(server.url) as cable, program(cable.url, state) as process:
        await finished_job(server, await start_job(server, "nothing"))
        cable.cut()
        with timed() as taken:
            process.send_signal(signal.SIGTERM)
            code = await asyncio.wait_for(process.wait(), GENEROUS)

    assert (code, taken[0] < 10) == (ExitCode.DRAINED, True)


@pytest.mark.root("newer kernels let only root filter what a TCP socket receives")
async def test_a_poll_that_leads_nowhere_is_given_up_long_before_its_end(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.dialects.http.connection.DEAD_PEER_TIMEOUT", 5)

    def is_open(poll: Call) -> bool:
        return poll.status is None and field_of(poll, "wait_seconds") == 30

    async with (
        Cable(server.url) as cable,
        supervising(server, state, base_url=cable.url, workers="1", wait_seconds="30"),
    ):
        await server.until(lambda: any(map(is_open, calls(server, "claim"))) or None, timeout=GENEROUS)
        asked = len(calls(server, "claim"))
        cable.forget()
        with timed() as taken:
            await server.until(lambda: len(calls(server, "claim")) > asked or None, timeout=GENEROUS)
        job = await finished_job(server, await start_job(server, "nothing"))

    assert (job.status, job.attempt) == ("completed", 1)
    assert 1 < taken[0] < 15
