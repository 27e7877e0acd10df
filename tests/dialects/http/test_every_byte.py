"""An answer that is cut off after any number of its bytes, by a reset: it is the whole answer, or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.faults import parse_faults
from supervisor.dialects.http.client import Account, Client
from supervisor.job import Directive, Fence, Job, Succeeded
from supervisor.job_server import Unavailable
from supervisor.reporting.report import Accepted, Reporter
from supervisor.reporting.spool import Spool
from supervisor.reporting.spool_format import Destination
from supervisor.stats import Stats
from tests.harness import GENEROUS, KEY, PROJECT, calls, start_job

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on

WORKER = "worker 1"
BYTES = range(600)
"""More than any of these answers has."""
AT_ONCE = 16
PARAMETERS = {"text": "x" * 100}


@asynccontextmanager
async def resetting(call: str) -> AsyncIterator[tuple[DevServer, Client]]:
    """A server that cuts one answer of each job: of the job handed out as number n, after n - 1 bytes."""
    faults = [{"what": "reset", "call": call, "claimed": size + 1, "nth": 1, "bytes": size} for size in BYTES]
    settings = DevServerSettings(lease_ttl=600, journal=True, faults=parse_faults({"faults": faults}))
    async with (
        DevServer(settings) as server,
        Client(Account(server.url, PROJECT, WORKER, ("default",)), KEY) as client,
    ):
        yield server, client


async def claimed(server: DevServer, client: Client) -> Job | None:
    """The job that was just started; None when the answer was cut."""
    await start_job(server, "echo", PARAMETERS)
    try:
        return await client.claim(["echo"], wait=0)
    except Unavailable:
        return None


async def test_a_claim_hands_out_a_whole_job_or_none() -> None:
    async with resetting("claim") as (server, client):
        jobs = [await claimed(server, client) for _ in BYTES]

    whole = [size for size, job in enumerate(jobs) if job is not None]
    assert whole[0] > 400  # the head, the envelope and all of the parameters
    assert len(whole) > 50
    assert {job.parameters for job in jobs if job} == {b'{"text":"' + b"x" * 100 + b'"}'}


async def test_a_heartbeat_is_answered_as_a_whole_or_not_at_all() -> None:
    async def beat(fence: Fence) -> Directive | None:
        try:
            return await client.heartbeat(fence, timeout=GENEROUS)
        except Unavailable:
            return None

    async with resetting("heartbeat") as (server, client):
        answers = []
        for _ in BYTES:
            job = await claimed(server, client)
            assert job is not None
            await server.cancel_run(job.run_id)
            fence = Fence(WORKER, job.job_id, job.attempt)
            answers.append((await beat(fence), await beat(fence)))

    firsts = [first for first, _ in answers]
    assert set(firsts) == {None, Directive.CANCEL}
    assert firsts.index(Directive.CANCEL) > 100
    assert {second for _, second in answers} == {Directive.CANCEL}


async def test_a_report_is_sent_again_and_counts_once(state: Path) -> None:
    async with resetting("complete") as (server, client):
        reporter = Reporter(client, Spool(state), Destination(server.url, PROJECT), 5.0, Stats())
        turn = asyncio.Semaphore(AT_ONCE)

        async def report(job: Job) -> str:
            fence = Fence(WORKER, job.job_id, job.attempt)
            async with turn:
                report = reporter.report(fence, job.action, Succeeded(b"MQ=="), structlog.get_logger())
                assert isinstance(await report.deliver(), Accepted)
                await report.end()
            return server.jobs(job.run_id)[0].status

        jobs = [await claimed(server, client) for _ in BYTES]
        stati = await asyncio.gather(*(report(job) for job in jobs if job))

    told = [[call.status for call in calls(server, "complete", job.job_id)] for job in jobs if job]
    assert stati == ["completed"] * len(BYTES)
    assert all(statuses in ([204], [204, 204]) for statuses in told)
    assert told.count([204, 204]) > 40
    assert not [path for path in state.rglob("*") if path.is_file()]
