"""Signals that were blocked or ignored before the start work in every process and in programs of handlers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.devserver.app import DevServer
from supervisor.job import Succeeded
from supervisor.process.exit_watch import ChildDied
from supervisor.process.job_channel import JobReply
from tests.harness import GENEROUS, finished_job, logged, program, reports, result_of, start_job
from tests.process_world import module, run, world

STARTED_BADLY = """
import os, signal, sys
blocked = {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD, signal.SIGRTMIN}
for number in (signal.SIGCHLD, signal.SIGALRM, signal.SIGINT, signal.SIGUSR2, signal.SIGTTOU, signal.SIGRTMAX):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
os.execv(sys.argv[1], sys.argv[1:])
"""
AS_SEEN = """
import re, signal, subprocess
from supervisor import handler

GLIBCS = 3 << 31  # signals 32 and 33: posix_spawn of glibc, with which make starts us, leaves them ignored

def masks(status: str) -> list[str]:
    found = [int(re.search(rf"{name}:\\s*(\\w+)", status)[1], 16) for name in ("SigBlk", "SigIgn")]
    return [f"{mask & ~GLIBCS:016x}" for mask in found]

@handler("look")
def look() -> list[object]:
    cat = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True)
    exit_code = subprocess.run(["sh", "-c", "exit 7"]).returncode
    interrupted = subprocess.Popen(["sleep", "60"])
    interrupted.send_signal(signal.SIGINT)
    is_pythons = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return [masks(cat.stdout), masks(open("/proc/self/status").read()), exit_code, interrupted.wait(), is_pythons]
"""
NAPS = """
import time
from supervisor import handler

@handler("nap")
def nap() -> None:
    time.sleep(60)
"""
NOTHING = "0" * 16
OF_PYTHON = f"{1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1):016x}"
AS_EXPECTED = [[NOTHING, NOTHING], [NOTHING, OF_PYTHON], 7, -signal.SIGINT, True]


async def test_handlers_and_their_programs_start_with_default_signals(server: DevServer, tmp_path: Path) -> None:
    badly = (sys.executable, "-c", STARTED_BADLY)
    state = tmp_path / "state"
    handlers = module(tmp_path / "handlers", AS_SEEN)

    async with program(server.url, state, badly, handlers=str(handlers), workers="1") as supervisor:
        await logged(state, "serving")
        run_id = await start_job(server, "look")
        job: Any = await finished_job(server, run_id)
        supervisor.send_signal(signal.SIGTERM)
        async with asyncio.timeout(GENEROUS):
            code = await supervisor.wait()

    assert result_of(reports(server, job.id)[0]) == AS_EXPECTED
    assert code == 0


@pytest.mark.parametrize(
    "source",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})",
    ],
)
async def test_a_module_that_changes_signals_at_import_does_not_affect_jobs(tmp_path: Path, source: str) -> None:
    async with world(module(tmp_path / "handlers", f"{AS_SEEN}\n{source}")) as here:
        reply = await run(await here.child(), "look")

    assert result(reply) == AS_EXPECTED


async def test_a_module_that_reaps_every_process_does_not_prevent_forks(tmp_path: Path) -> None:
    reaps = "import os\nsignal.signal(signal.SIGCHLD, lambda *_: os.waitpid(-1, os.WNOHANG))"

    async with world(module(tmp_path / "handlers", f"{AS_SEEN}\n{reaps}")) as here:
        assert [(await here.child()).is_idle for _ in range(3)] == [True] * 3


def result(reply: JobReply) -> Any:
    assert isinstance(reply.outcome, Succeeded)
    assert isinstance(reply.outcome.result, bytes)
    return json.loads(base64.b64decode(reply.outcome.result))


@pytest.fixture
def no_exit_codes() -> Iterator[None]:
    """This process ignores SIGCHLD, so that the kernel reaps its children."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("no_exit_codes")
async def test_a_crash_is_detected_without_an_exit_status(tmp_path: Path) -> None:
    async with world(module(tmp_path / "handlers", NAPS)) as here:
        child = await here.child()
        assert child.pid is not None
        job = asyncio.ensure_future(run(child, "nap"))
        await asyncio.sleep(0)
        os.kill(child.pid, signal.SIGKILL)

        with pytest.raises(ChildDied, match="its exit status was lost"):
            await job


def test_a_command_unblocks_signals_and_keeps_those_of_nohup_ignored() -> None:
    look = (
        "import signal; from supervisor.cli.main import main; main(['version'], standalone_mode=False);"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGHUP).name)"
    )
    badly = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM});"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    )

    ended = subprocess.run([sys.executable, "-c", badly, look], capture_output=True, text=True, check=True)

    assert ended.stdout.splitlines()[-1] == "set() SIG_IGN"
