"""Shutting down: SIGTERM, SIGINT once, twice, three times, SIGQUIT; and what the exit codes say."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from supervisor.devserver.app import DevServer
from supervisor.exit_code import ExitCode
from tests.harness import (
    GENEROUS,
    calls,
    event,
    finished_job,
    is_alive,
    logged,
    program,
    reports,
    start_job,
    supervising,
)

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on


async def test_sigterm_finishes_what_runs_and_exits_with_0(server: DevServer, state: Path) -> None:
    async with supervising(server, state) as supervisor:
        run = await start_job(server, "sleeps", {"seconds": 0.7})
        await server.until(lambda: server.jobs(run)[0].status == "claimed")
        supervisor.signal(signal.SIGTERM)
        code = await supervisor.exit_code()

    assert code is ExitCode.DRAINED
    assert server.jobs(run)[0].status == "completed"


async def test_heartbeats_go_on_while_draining(server: DevServer, state: Path) -> None:
    async with supervising(server, state) as supervisor:
        run = await start_job(server, "sleeps", {"seconds": 1.0})
        await server.until(lambda: server.jobs(run)[0].status == "claimed")
        supervisor.signal(signal.SIGTERM)
        await supervisor.exit_code()

    assert len(calls(server, "heartbeat")) >= 3


async def test_an_idle_supervisor_leaves_within_a_second(server: DevServer, state: Path) -> None:
    async with supervising(server, state, wait_seconds="30") as supervisor:
        await finished_job(server, await start_job(server, "nothing"))
        await server.until(lambda: any(call.status is None for call in calls(server, "claim")) or None)
        began = asyncio.get_running_loop().time()
        supervisor.signal(signal.SIGTERM)
        code = await supervisor.exit_code()

    assert code is ExitCode.DRAINED
    assert asyncio.get_running_loop().time() - began < 3.0


async def test_a_job_that_arrives_while_the_last_poll_is_open_is_run(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1") as supervisor:
        await server.until(lambda: any(call.status is None for call in calls(server, "claim")[1:]) or None)
        supervisor.signal(signal.SIGTERM)
        run = await start_job(server, "nothing")
        code = await supervisor.exit_code()

    assert code is ExitCode.DRAINED
    assert server.jobs(run)[0].status == "completed"


@pytest.mark.parametrize("action", ["python-loop", "c-call", "with-daemon"])
async def test_the_deadline_cuts_jobs_and_says_so_with_6(server: DevServer, state: Path, action: str) -> None:
    async with supervising(server, state, drain_timeout="100ms", cancel_grace="200ms") as supervisor:
        run = await start_job(server, action)
        working = await event(server, run, "working")
        supervisor.signal(signal.SIGTERM)
        code = await supervisor.exit_code()

    assert code is ExitCode.JOBS_CUT
    (report,) = reports(server, server.jobs(run)[0].id)
    assert (report.body["status"], report.body["error_type"]) == ("failed", "WorkerShutdown")
    assert not any(map(is_alive, working["pids"]))


@pytest.mark.parametrize("signals", [[signal.SIGTERM] * 2, [signal.SIGINT] * 2, [signal.SIGQUIT]])
async def test_a_second_signal_stops_the_jobs_with_grace(
    server: DevServer, state: Path, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    note = tmp_path / "note"
    async with supervising(server, state) as supervisor:
        run = await start_job(server, "cleans-up", {"note": str(note)})
        await event(server, run, "working")
        for number in signals:
            supervisor.signal(number)
            await asyncio.sleep(0.05)  # signals of one kind that are pending at once are one signal
        code = await supervisor.exit_code()

    assert code is ExitCode.JOBS_CUT
    assert note.read_text() == "cleaned up"
    assert reports(server, server.jobs(run)[0].id)[0].body["error_type"] == "WorkerShutdown"


async def test_a_third_interrupt_kills_and_exits_with_7(server: DevServer, state: Path) -> None:
    async with supervising(server, state, cancel_grace="1m") as supervisor:
        run = await start_job(server, "ignores-sigterm")
        working = await event(server, run, "working")
        for _ in range(3):
            supervisor.signal(signal.SIGINT)
            await asyncio.sleep(0.05)  # signals of one kind that are pending at once are one signal
        code = await supervisor.exit_code()

    assert code is ExitCode.THIRD_INTERRUPT
    assert not any(map(is_alive, working["pids"]))
    assert reports(server, server.jobs(run)[0].id) == []


async def test_shutting_down_ends_although_the_server_never_answers(server: DevServer, state: Path) -> None:
    async with supervising(server, state, cancel_grace="100ms") as supervisor:
        run = await start_job(server, "ignores-sigterm")
        working = await event(server, run, "working")

        async def never(_: object) -> None:
            await asyncio.Event().wait()

        server.intercept = never
        supervisor.signal(signal.SIGQUIT)
        code = await supervisor.exit_code()
        server.intercept = None

    assert code is ExitCode.JOBS_CUT
    assert not any(map(is_alive, working["pids"]))


async def test_the_program_itself_exits_with_these_codes(server: DevServer, state: Path) -> None:
    async with program(server.url, state, cancel_grace="1m") as process:
        run = await start_job(server, "ignores-sigterm")
        await event(server, run, "working")
        process.send_signal(signal.SIGINT)
        await logged(state, "once more: stop them")
        process.send_signal(signal.SIGINT)
        await logged(state, "once more: kill them")
        process.send_signal(signal.SIGINT)
        code = await process.wait()

    assert code == ExitCode.THIRD_INTERRUPT


def is_told(beginning: str, told: list[str]) -> bool:
    return any(text.startswith(beginning) for text in told)


async def test_readiness_and_stopping_are_told_to_systemd(server: DevServer, state: Path, tmp_path: Path) -> None:
    import socket

    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet:
        outlet.bind(address)
        outlet.setblocking(False)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid())}
        async with supervising(server, state, environment) as supervisor:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(10):
                told: list[str] = []
                while not ({"READY=1", "WATCHDOG=1"} <= set(told) and is_told("STATUS=2 children", told)):
                    told.append((await loop.sock_recv(outlet, 4096)).decode())
                supervisor.signal(signal.SIGTERM)
                while "STOPPING=1" not in told:
                    told.append((await loop.sock_recv(outlet, 4096)).decode())

    assert calls(server, "claim")[0].answered_at is not None


ENDLESS = """
import os
print("importing as", os.getpid(), flush=True)
while True:
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
async def test_a_signal_ends_a_start_whose_handlers_import_for_ever(
    server: DevServer, state: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "endless.py").write_text(ENDLESS)
    async with program(server.url, state, handlers=str(tmp_path / "handlers")) as process:
        await logged(state, "importing as ")
        process.send_signal(number)
        code = await asyncio.wait_for(process.wait(), GENEROUS)

    (pid,) = re.findall(r"importing as (\d+)", (state / "log").read_text())
    assert code == ExitCode.DRAINED
    assert not is_alive(int(pid))
