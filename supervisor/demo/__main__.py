"""The demo: a local server in this process, a supervisor in another, jobs of every kind, and a table of their outcomes.

Tested by tests/demo/test_program.py.
"""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import signal
import sys
import tempfile
import time
from asyncio.subprocess import Process
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from supervisor.concurrency.helpers import HelperTasks
from supervisor.demo.board import Board, board_for, is_terminal, table
from supervisor.demo.jobs import DemoJob, JobState, demo_jobs, look
from supervisor.demo.program import HANDLERS, WORKERS, log_of, program
from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.linux.syscalls import become_subreaper, children_of

PROJECT = "demo"
HEARTBEAT_INTERVAL = 0.5
"""Seconds; a real server requires ten or more.  A cancelled job may continue for this long."""
REDRAW_AFTER = 0.2
CANCEL_AFTER = 2.2
DEMO_TIMEOUT = 180.0
INTERRUPTED = 130


class DemoFailed(Exception):
    """The demo did not end as expected.  Caught by `main`."""


@click.command()
@click.option("--quick", is_flag=True, help="Smaller jobs.")
def main(*, quick: bool) -> None:
    """Run jobs of every kind on a local server and show how each of them ends."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the locale may not have the characters of a progress bar
    become_subreaper()  # orphans of the supervisor become children of the demo, which detects them
    folder = Path(tempfile.mkdtemp(prefix="mobius-demo-"))
    trouble, code = "", 0
    try:
        asyncio.run(_interruptible(folder, quick=quick))
    except* asyncio.CancelledError:
        trouble, code = "interrupted; the supervisor and its jobs are stopped", INTERRUPTED
    except* TimeoutError:
        trouble, code = f"not done after {DEMO_TIMEOUT:g} s", 1
    except* DemoFailed as failed:
        trouble, code = _first(failed), 1
    if trouble:
        hint = f"\n      the supervisor's log: {log_of(folder)}" if log_of(folder).exists() else ""
        click.echo(f"\ndemo: {trouble}{hint}", err=True)
    sys.exit(code)


def _first(group: BaseException) -> str:
    """Return the message of the first error in a group."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return str(group)


async def _interruptible(folder: Path, *, quick: bool) -> None:
    """Run the demo; SIGINT and SIGTERM cancel it, which stops everything in order."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await run_demo(folder, quick=quick)


async def run_demo(folder: Path, *, quick: bool) -> None:
    """Run all jobs to the end; raise `DemoFailed`, alone or in a group."""
    if not HANDLERS.is_dir():
        raise DemoFailed(f"the demo runs from a source tree: there is no {HANDLERS}")
    api_key = f"mbx_{secrets.token_hex(16)}"
    picture = folder / "mandelbrot.png"
    jobs = demo_jobs(picture, quick=quick)
    async with DevServer(DevServerSettings(api_key=api_key, heartbeat_interval=HEARTBEAT_INTERVAL)) as server:
        click.echo(f"A local server on {server.url}, a supervisor with {WORKERS} children, {len(jobs)} jobs.\n")
        async with program(server.url, PROJECT, api_key, folder) as supervisor:
            standings = await _run_jobs(server, supervisor, jobs)
            code = await _drained(supervisor)
    click.echo("\n" + table(standings, in_colour=is_terminal(sys.stdout)))
    _judge(standings, code)
    click.echo(f"The picture: {picture}\nThe log:     {log_of(folder)}\n")
    click.echo("Each job ended as it should, and nothing of the supervisor is left running.")


async def _run_jobs(server: DevServer, supervisor: Process, jobs: list[DemoJob]) -> list[JobState]:
    runs = {await server.start_run(PROJECT, job.spec, inputs=job.inputs): job for job in jobs}
    async with asyncio.timeout(DEMO_TIMEOUT), HelperTasks() as beside:
        beside.start(lambda: _expect_to_stay(supervisor))
        for run_id, job in runs.items():
            if job.cancelled:
                beside.start(partial(_cancel_when_busy, server, run_id))
        return await _follow(server, runs, board_for(sys.stdout))


async def _expect_to_stay(supervisor: Process) -> None:
    code = await supervisor.wait()
    raise DemoFailed(f"the supervisor left early, with code {code}")


async def _cancel_when_busy(server: DevServer, run_id: str) -> None:
    """Cancel a run after its handler has entered its long C call."""
    await server.until(lambda: server.run(run_id).started_at, timeout=DEMO_TIMEOUT)
    await asyncio.sleep(CANCEL_AFTER)
    await server.cancel_run(run_id)


async def _follow(server: DevServer, runs: dict[str, DemoJob], board: Board) -> list[JobState]:
    """Show the state of the jobs, after each change and regularly, until all have ended."""
    while True:
        seen, now = server.store.last_seq(), time.time()
        standings = [look(server, job, run_id, now) for run_id, job in runs.items()]
        board.show(standings)
        if all(standing.is_ended for standing in standings):
            return standings
        await _news_or_pause(server, seen)


async def _news_or_pause(server: DevServer, seen: int) -> None:
    with suppress(TimeoutError):
        await server.until(lambda: server.store.last_seq() != seen, timeout=REDRAW_AFTER)


async def _drained(supervisor: Process) -> int:
    """Drain the supervisor and return its exit code."""
    supervisor.terminate()
    return await supervisor.wait()


def _judge(standings: list[JobState], code: int) -> None:
    wrong = [standing.job.title for standing in standings if not standing.is_right]
    if wrong:
        raise DemoFailed(f"ended otherwise than it should: {', '.join(wrong)}")
    if code != 0:
        raise DemoFailed(f"the supervisor left with code {code}")
    left = children_of(os.getpid())
    if left:
        raise DemoFailed(f"still running: {', '.join(map(str, left))}")


if __name__ == "__main__":
    main()
