"""What bounds a handler: time, memory, how many at once, how long a child lives; and what a failed report tells."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.call_log import Call
from supervisor.exit_code import ExitCode
from tests.harness import (
    GENEROUS,
    calls,
    event,
    field_of,
    finished_job,
    is_alive,
    program,
    reports,
    result_of,
    start_job,
    supervising,
)

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on


async def results(server: DevServer, state: Path, action: str, count: int, **parameters: Any) -> list[Any]:
    """The results of `count` jobs, one after the other in one slot."""
    found = []
    async with supervising(server, state, workers="1"):
        for _ in range(count):
            job = await finished_job(server, await start_job(server, action, parameters))
            found.append(result_of(reports(server, job.id)[0]))
    return found


async def failure(server: DevServer, state: Path, action: str, **parameters: Any) -> dict[str, Any]:
    """The body of the one report of a job."""
    async with supervising(server, state, workers="1"):
        job = await finished_job(server, await start_job(server, action, parameters))
    (report,) = reports(server, job.id)
    body: dict[str, Any] = report.body
    return body


@pytest.mark.parametrize(("action", "parameters"), [("greedy", {"megabytes": 100_000}), ("greedy-child", {})])
async def test_a_job_over_its_memory_limit_is_stopped(
    server: DevServer, state: Path, action: str, parameters: dict[str, Any]
) -> None:
    body = await failure(server, state, action, **parameters)

    assert body["error_type"] == "MemoryLimit"
    assert "its limit is 150 MiB" in body["error_message"]


async def test_a_job_within_its_memory_limit_is_left_alone(server: DevServer, state: Path) -> None:
    assert await results(server, state, "greedy", 1, megabytes=40) == [40]


async def test_no_more_of_a_handlers_jobs_run_at_once_than_it_allows(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="4"):
        runs = [await start_job(server, "one-at-a-time", {"seconds": 0.1}) for _ in range(5)]
        other = await start_job(server, "sleeps", {"seconds": 0.1})
        jobs = [await finished_job(server, run) for run in [*runs, other]]

    assert {job.status for job in jobs} == {"completed"}
    spans = sorted(result_of(reports(server, job.id)[0]) for job in jobs[:-1])
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))


async def test_a_fresh_handler_has_a_child_of_its_own_for_each_job(server: DevServer, state: Path) -> None:
    assert len(set(await results(server, state, "fresh", 3))) == 3


async def test_a_child_is_replaced_after_its_number_of_jobs(server: DevServer, state: Path) -> None:
    pids = await results(server, state, "two-per-child", 4)

    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_a_child_that_keeps_too_much_memory_is_replaced(server: DevServer, state: Path) -> None:
    small = await results(server, state, "keeps-memory", 2, megabytes=1)
    big = await results(server, state, "keeps-memory", 2, megabytes=200)

    assert small[0] == small[1]
    assert big[0] != big[1]


async def test_niceness_and_threads_are_as_the_handler_says(server: DevServer, state: Path) -> None:
    (told,) = await results(server, state, "polite", 1)

    assert told == {"nice": min(os.getpriority(os.PRIO_PROCESS, 0) + 11, 19), "threads": "3"}


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="the kernel does not group by session")
async def test_the_session_of_a_child_is_as_nice_as_the_child(server: DevServer, state: Path) -> None:
    (told,) = await results(server, state, "weight", 1)

    assert str(told).split()[-2:] == ["nice", "5"]


async def test_a_stopped_job_is_reported_with_stack_figures_and_last_output(server: DevServer, state: Path) -> None:
    body = await failure(server, state, "stuck-in-c")

    message = body["error_message"]
    assert body["error_type"] == "Timeout"
    assert message.startswith("the handler ran longer than its timeout of 200ms; it did not stop within its grace")
    for part in ("peak memory", "s of CPU", "stack:", "in stuck_in_c", "last output:", "entering the call"):
        assert part in message
    assert "supervisor/child/" not in message


async def test_a_crash_is_reported_with_its_stack(server: DevServer, state: Path) -> None:
    body = await failure(server, state, "segfault")

    assert "was killed by SIGSEGV" in body["error_message"]
    assert "in segfault" in body["error_message"]


async def test_children_that_never_come_up_end_the_program_with_3(
    server: DevServer, state: Path, tmp_path: Path
) -> None:
    (tmp_path / "stillborn.py").write_text(
        "import os\nfrom supervisor import handler\n"
        "os.register_at_fork(after_in_child=lambda: os._exit(1))\n"
        "@handler('never')\ndef never(): ...\n"
    )

    async with supervising(server, state, handlers=str(tmp_path)) as supervisor:
        assert await supervisor.exit_code() is ExitCode.NO_HANDLER


async def test_a_lease_lives_as_long_as_the_server_says(state: Path) -> None:
    told: list[Call] = []

    async def tell_and_fall_silent(call: Call) -> web.StreamResponse | None:
        if call.name == "get_job":
            told.append(call)
            beat = datetime.now(UTC)
            stamps = {"heartbeat_at": beat, "liveness_deadline_at": beat + timedelta(seconds=30)}
            known = {name: stamp.isoformat() for name, stamp in stamps.items()}
            return web.json_response({"status": "claimed", "attempt": 1, **known})
        return web.Response(status=503) if call.name == "heartbeat" and told else None

    async with DevServer(DevServerSettings(heartbeat_interval=0.2, lease_ttl=30, journal=True)) as server:
        server.intercept = tell_and_fall_silent
        async with supervising(server, state, workers="1", lease_ttl=None):
            # Three intervals, what is assumed where the server does not tell, would be over long before.
            job = await finished_job(server, await start_job(server, "sleeps", {"seconds": 1.5}))

    assert (job.status, job.attempt) == ("completed", 1)
    assert len(told) == 1


async def test_a_rotated_key_is_taken_without_anybody_noticing(state: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("mbx_old")
    key_file.chmod(0o600)
    settings = DevServerSettings(
        api_key="mbx_old", heartbeat_interval=0.2, lease_ttl=20, journal=True, database=tmp_path / "runs"
    )

    async with DevServer(settings) as server, AsyncExitStack() as stack:
        process = await stack.enter_async_context(program(server.url, state, api_key_file=str(key_file)))
        run = await start_job(server, "sleeps", {"seconds": 1.5})
        await server.until(lambda: calls(server, "heartbeat") or None, timeout=GENEROUS)
        port = int(server.url.rpartition(":")[2])
        keep = stack.pop_all()
    async with keep:
        key_file.write_text("")  # whoever writes a file may be seen in the middle of it
        async with DevServer(replace(settings, api_key="mbx_new", port=port)) as server:
            await server.until(lambda: any(call.status == 401 for call in server.calls) or None, timeout=GENEROUS)
            key_file.write_text("mbx_new")
            job = await finished_job(server, run)
            process.send_signal(signal.SIGTERM)
            code = await asyncio.wait_for(process.wait(), GENEROUS)

    assert (job.status, job.attempt, code) == ("completed", 1, 0)


async def test_a_job_granted_to_a_supervisor_that_is_stopped_does_not_run_on_its_dead_lease(state: Path) -> None:
    def is_open(poll: Call) -> bool:
        """And stays so for longer than it takes to stop whoever has opened it."""
        return poll.status is None and field_of(poll, "wait_seconds") == 30

    settings = DevServerSettings(heartbeat_interval=0.5, lease_ttl=1.5, journal=True)
    async with DevServer(settings) as server, program(server.url, state, workers="1", wait_seconds="30") as process:
        await finished_job(server, await start_job(server, "nothing"))
        await server.until(lambda: any(map(is_open, calls(server, "claim"))) or None)
        process.send_signal(signal.SIGSTOP)
        run = await start_job(server, "nothing", retry=[{"max_retries": 1, "base_delay": "0s"}])
        await server.until(lambda: server.jobs(run)[-1].attempt == 2 or None, timeout=GENEROUS)
        await asyncio.sleep(1)  # a sleep of two seconds and more is one, for the supervisor
        process.send_signal(signal.SIGCONT)
        job = await finished_job(server, run)

    assert (job.status, job.attempt) == ("completed", 2)
    assert [report.body["attempt"] for report in reports(server, job.id)] == [2]


async def test_a_supervisor_that_was_stopped_kills_what_is_over_before_it_says_a_word(state: Path) -> None:
    async with (
        DevServer(DevServerSettings(heartbeat_interval=0.2, lease_ttl=60, journal=True)) as server,
        program(server.url, state, lease_ttl="1s", workers="1") as process,
    ):
        run = await start_job(server, "python-loop")
        working = await event(server, run, "working")
        job = server.jobs(run)[0]
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)  # longer than the lease lives
        before = len(server.calls)
        process.send_signal(signal.SIGCONT)
        await server.until(lambda: len(server.calls) > before or None, timeout=GENEROUS)

        assert not any(map(is_alive, working["pids"]))
        assert [call for call in server.calls[before:] if call.job_id == job.id] == []
