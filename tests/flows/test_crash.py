"""Processes die: a child, the zygote, the supervisor itself."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.devserver.app import DevServer
from supervisor.linux.process_tag import tagged_pids
from supervisor.linux.syscalls import children_of
from tests.flows.test_lease_loss import ended
from tests.harness import event, finished_job, program, reports, result_of, start_job, supervising, zygote_of

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on

STUBBORN = ["python-loop", "c-call", "ignores-sigterm", "with-subprocess", "with-own-session", "with-daemon"]


def mark_of(supervisor: int) -> int:
    """What all processes of a supervisor wear."""
    # What was left of a program that another test has killed came to us, who adopt, and is not to be counted.
    alive = [each for each in map(psutil.Process, children_of(supervisor)) if each.status() != psutil.STATUS_ZOMBIE]
    marks = {each.rlimit(resource.RLIMIT_RTTIME)[0] for each in alive}
    (mark,) = marks - {resource.RLIM_INFINITY}
    return mark


async def test_a_child_that_dies_while_idle_is_replaced(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1"):
        first = await finished_job(server, await start_job(server, "pid"))
        pid = result_of(reports(server, first.id)[0])
        os.kill(pid, signal.SIGKILL)
        await ended([pid])
        second = await finished_job(server, await start_job(server, "pid"))

    assert second.status == "completed"
    assert result_of(reports(server, second.id)[0]) != pid


async def test_one_dead_child_hurts_no_other_job(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        long = await start_job(server, "sleeps", {"seconds": 0.5})
        for _ in range(3):
            await finished_job(server, await start_job(server, "segfault"))
        job = await finished_job(server, long)

    assert (job.status, job.attempt) == ("completed", 1)


async def test_the_death_of_the_zygote_harms_no_job_and_a_new_one_serves(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        running = await start_job(server, "sleeps", {"seconds": 0.7})
        await server.until(lambda: server.jobs(running)[0].status == "claimed")
        os.kill(zygote_of(os.getpid()), signal.SIGKILL)
        # Two in a row that need a new child each.
        for _ in range(2):
            job = await finished_job(server, await start_job(server, "die-by-exit", {"code": 1}))
            assert job.error_type == "ChildDied"
        job = await finished_job(server, running)

    assert (job.status, job.attempt) == ("completed", 1)


async def test_the_death_of_a_zygote_is_one_line_and_all_slots_wait_for_the_next(
    server: DevServer, state: Path
) -> None:
    async with program(server.url, state, workers="4") as process:
        runs = [await start_job(server, "python-loop") for _ in range(4)]
        for run in runs:
            await event(server, run, "working")
        zygote = zygote_of(process.pid)
        for victim in sorted(children_of(process.pid), key=lambda pid: pid != zygote):  # the zygote first
            os.kill(victim, signal.SIGKILL)
        dead = [await finished_job(server, run) for run in runs]
        after = await finished_job(server, await start_job(server, "nothing"))

    log = (state / "log").read_text()
    assert {job.error_type for job in dead} == {"ChildDied"}
    assert after.status == "completed"
    assert (log.count("the zygote died"), log.count("no child")) == (1, 0)


@pytest.mark.parametrize("action", STUBBORN)
async def test_a_killed_supervisor_leaves_no_process_behind(server: DevServer, state: Path, action: str) -> None:
    async with program(server.url, state) as process:
        run = await start_job(server, action)
        working = await event(server, run, "working")
        mark = mark_of(process.pid)
        assert set(working["pids"]) <= set(tagged_pids(mark))
        end = asyncio.create_task(ended(list(tagged_pids(mark))))
        process.kill()
        await end

    assert list(tagged_pids(mark)) == []


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
