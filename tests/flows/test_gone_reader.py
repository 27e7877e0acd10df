"""The reader of the log, or of a command's output, leaves: the exit code stays what it would have been."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from supervisor.devserver.app import DevServer
from tests.harness import GENEROUS, KEY, PROJECT, finished_job, start_job

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # the program brings its own loop; ours does not matter

HANDLER = """
from supervisor import handler

@handler("prints")
def prints() -> None:
    print("a line for the log")
"""
SERVER = ("server", "--port", "0")
DEV = ("dev", "--port", "0", "--workers", "1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with handlers."""
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "prints.py").write_text(HANDLER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("MOBIUS_API_KEY", KEY)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # without a buffer nothing would be left at the end
    return tmp_path


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[tuple[Process, BinaryIO]]:
    """A command, and what reads its output and its log, which are one pipe."""
    reading, writing = os.pipe()
    command = (sys.executable, "-m", "supervisor", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=writing, stderr=writing)
    os.close(writing)
    with open(reading, "rb") as output:
        try:
            yield process, output
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def leave(output: BinaryIO, text: bytes) -> None:
    """Read until there is `text`, and then no more."""
    async with asyncio.timeout(GENEROUS):
        while text not in (line := await asyncio.to_thread(output.readline)):
            assert line, "it has ended"
    output.close()


async def exit_code(process: Process) -> int:
    return await asyncio.wait_for(process.wait(), GENEROUS)


@pytest.mark.parametrize("when", [b"serving", b"draining"])
async def test_a_supervisor_is_drained_though_its_log_has_no_reader(
    server: DevServer, folder: Path, when: bytes
) -> None:
    options = ("--base-url", server.url, "--project", PROJECT, "--state-dir", str(folder / "s"), "--workers", "1")
    async with running(*options, "--log-level", "debug") as (process, output):
        if when != b"draining":
            await leave(output, when)
        assert (await finished_job(server, await start_job(server, "prints"))).status == "completed"
        process.send_signal(signal.SIGTERM)
        if when == b"draining":
            await leave(output, when)

        assert await exit_code(process) == 0


@pytest.mark.parametrize(("command", "text"), [(SERVER, b"development server"), (DEV, b"serving")])
async def test_a_server_ends_in_order_though_its_output_has_no_reader(
    folder: Path, command: tuple[str, ...], text: bytes
) -> None:
    async with running(*command) as (process, output):
        await leave(output, text)
        process.send_signal(signal.SIGINT)

        assert await exit_code(process) == 0


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("run",), 2),
        (("check",), 1),
        (("unit",), 1),
        (("spool", "ls", "--state-dir", "none"), 2),
    ],
)
async def test_a_command_without_a_reader_has_no_traceback_and_an_exit_code_of_its_own(
    folder: Path, command: tuple[str, ...], code: int
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = (sys.executable, "-m", "supervisor", *command)
    codes = []
    for error in (writing, PIPE):
        process = await asyncio.create_subprocess_exec(*arguments, stdin=DEVNULL, stdout=writing, stderr=error)
        _, said = await asyncio.wait_for(process.communicate(), GENEROUS)
        assert b"Traceback" not in (said or b"")
        assert b"BrokenPipe" not in (said or b"")
        codes.append(process.returncode)
    os.close(writing)

    assert codes == [code, code]
