"""Processes die: a child, the zygote, the supervisor itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from supervisor.devserver.app import DevServer
from supervisor.process.environment import INSTANCE
from tests.flows.test_lease_loss import ended
from tests.harness import event, finished_job, is_alive, program, reports, result_of, start_job, supervising

STUBBORN = ["python-loop", "c-call", "ignores-sigterm", "with-subprocess", "with-own-session", "with-daemon"]


def processes_of(worker_id: str) -> dict[int, str]:
    """The live processes that a supervisor has started, zygote included: command lines by pid."""
    mark = f"{INSTANCE}={worker_id}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_text()
        except OSError:
            continue
    return found


def zygote_of(worker_id: str) -> int:
    """The leader of the zygote's session; children lead sessions of their own."""
    marked = processes_of(worker_id)
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in marked}
    (zygote,) = [pid for pid, command in marked.items() if "zygote_main" in command and is_zygote(pid, parents)]
    return zygote


def is_zygote(pid: int, parents: dict[int, int]) -> bool:
    # The zygote is started first, so it has the lowest start time of all.
    started = {each: int(Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[19]) for each in parents}
    return started[pid] == min(started.values()) and pid == min(
        each for each in started if started[each] == started[pid]
    )


async def test_a_child_that_dies_while_idle_is_replaced(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1"):
        first = await finished_job(server, await start_job(server, "pid"))
        pid = result_of(reports(server, first.id)[0])
        os.kill(pid, signal.SIGKILL)
        second = await finished_job(server, await start_job(server, "pid"))

    assert second.status == "completed"
    assert result_of(reports(server, second.id)[0]) != pid


async def test_one_dead_child_hurts_no_other_job(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        long = await start_job(server, "sleeps", {"seconds": 0.5})
        for _ in range(5):
            await finished_job(server, await start_job(server, "segfault"))
        job = await finished_job(server, long)

    assert (job.status, job.attempt) == ("completed", 1)


async def test_the_death_of_the_zygote_harms_no_job_and_a_new_one_serves(server: DevServer, state: Path) -> None:
    async with supervising(server, state) as supervisor:
        running = await start_job(server, "sleeps", {"seconds": 0.7})
        await server.until(lambda: server.jobs(running)[0].status == "claimed")
        os.kill(zygote_of(supervisor.settings.worker_id), signal.SIGKILL)
        # Two in a row that need a new child each.
        for _ in range(2):
            job = await finished_job(server, await start_job(server, "die-by-exit", {"code": 1}))
            assert job.error_type == "ChildDied"
        job = await finished_job(server, running)

    assert (job.status, job.attempt) == ("completed", 1)


@pytest.mark.parametrize("action", STUBBORN)
async def test_a_killed_supervisor_leaves_no_process_behind(server: DevServer, state: Path, action: str) -> None:
    worker_id = f"to-be-killed-{os.getpid()}"
    async with program(server.url, state, worker_id=worker_id) as process:
        run = await start_job(server, action)
        working = await event(server, run, "working")
        others = [pid for pid in processes_of(worker_id) if pid not in working["pids"]]
        process.kill()
        await process.wait()
        await ended([pid for pid in [*working["pids"], *others] if is_alive(pid)])

    assert processes_of(worker_id) == {}


@pytest.mark.parametrize(
    ("action", "parameters"),
    [
        ("closes-descriptors", {"first": 0, "last": 3}),
        ("closes-descriptors", {"first": 3, "last": 64}),
        ("closes-descriptors", {"first": 0, "last": 64}),
        ("garbage-on-every-descriptor", {}),
    ],
)
async def test_a_child_that_breaks_its_descriptors_hurts_only_its_own_job(
    server: DevServer, state: Path, action: str, parameters: dict[str, Any]
) -> None:
    async with supervising(server, state, workers="1"):
        broken = await finished_job(server, await start_job(server, action, parameters))
        after = await finished_job(server, await start_job(server, "prints", {"line": "still here"}))

    assert broken.status in ("completed", "failed")
    assert after.status == "completed"
