from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from supervisor.logs import outlet
from supervisor.logs.outlet import LogWriter
from tests.harness import GENEROUS

DROPPED = re.compile(rb"\[(\d+) log lines dropped: the reader was too slow\]")
SAYS = """
import structlog
from supervisor.logs import log
log.configure("info", "json")
for number in range(2000):
    structlog.get_logger("x").info(f"line {number}")
"""


def test_a_line_in_a_file_is_there_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        LogWriter(file).write("here")

        assert (tmp_path / "log").read_text() == "here\n"


def test_all_lines_reach_a_slow_reader_in_their_order_before_the_program_ends() -> None:
    ended = subprocess.run([sys.executable, "-c", SAYS], stderr=subprocess.PIPE, text=True, check=True)

    assert [line.split('"')[11] for line in ended.stderr.splitlines()] == [f"line {number}" for number in range(2000)]


def test_a_pipe_that_another_program_made_non_blocking_loses_no_line() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(writing, "w") as stream, open(reading) as read:
        lines = LogWriter(stream)
        for number in range(2000):
            lines.write(f"{number} {'x' * 99}")

        numbers = [read.readline().split()[0] for _ in range(2000)]

    assert numbers == [str(number) for number in range(2000)]


def test_nobody_waits_for_a_reader_and_what_is_too_much_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MAX_QUEUED_BYTES", 200_000)
    reading, writing = os.pipe()
    with open(writing, "w") as stream:
        lines = LogWriter(stream)
        for _ in range(1000):
            lines.write("x" * 999)  # five times as much as fits

        read, kept, dropped = b"", 0, 0
        while kept + dropped < 1000:  # the thread may report in several pieces what it has dropped
            *whole, read = (read + os.read(reading, 65536)).split(b"\n")
            kept += whole.count(b"x" * 999)
            reports = [line for line in whole if line != b"x" * 999]
            dropped += sum(int(DROPPED.fullmatch(line)[1]) for line in reports)  # type: ignore[index]
    os.close(reading)

    assert (kept + dropped, read) == (1000, b"")
    assert dropped > 0


def test_the_end_of_the_program_does_not_wait_for_ever_for_a_reader() -> None:
    reading, writing = os.pipe()
    environments = [{**os.environ, "PYTHONUNBUFFERED": text} for text in ("1", "")]  # a buffer has a lock
    ending = [subprocess.Popen([sys.executable, "-c", SAYS], stderr=writing, env=each) for each in environments]

    assert [process.wait(GENEROUS) for process in ending] == [0, 0]
    os.close(reading)
    os.close(writing)


def test_what_has_not_been_written_to_yet_has_no_thread() -> None:
    before = threading.active_count()
    _, writing = pipe = os.pipe()

    with open(writing, "w") as stream:
        LogWriter(stream)
    os.close(pipe[0])

    assert threading.active_count() == before
