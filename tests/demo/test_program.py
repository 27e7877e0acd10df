"""The demo as a user without a terminal sees it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.demo.board import bar, line
from supervisor.demo.jobs import DemoJob, JobState
from tests.harness import is_alive

ROWS = {
    "mandelbrot": ("1", "completed", "PNG"),
    "a C call": ("1", "cancelled", "after the cancel"),
    "fails twice": ("3", "completed", "attempt 3"),
    "words": ("1", "completed", "words"),
    "primes": ("1", "completed", "5,133 primes"),
    "1,000 digits": ("1", "completed", "3.1415926"),
    "factor": ("1", "completed", "1000003 × 2000003"),
}


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "supervisor.demo", "--quick"],
        env={**os.environ, "TMPDIR": str(folder), "MOBIUS_SUPERVISOR_QUEUE": "of-another-supervisor"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(folder: Path) -> list[int]:
    """The pids of all processes whose command line or environment names the folder."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and str(folder).encode() in said_by(pid) and is_alive(pid)]


def said_by(pid: int) -> bytes:
    said = b""
    for name in ("cmdline", "environ"):
        with suppress(OSError):  # it ended meanwhile, or does not let itself be read
            said += Path(f"/proc/{pid}/{name}").read_bytes()
    return said


def test_each_job_ends_as_it_should_and_nothing_is_left(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        out, err = demo.communicate(timeout=50)

    assert (demo.returncode, err) == (0, "")
    for title, cells in ROWS.items():
        (row,) = re.findall(rf"^{title}.*$", out.partition("WHAT CAME OUT")[2], re.MULTILINE)
        assert all(cell in row for cell in cells)
    picture = Path(re.findall(r"^The picture: (.*)$", out, re.MULTILINE)[0])
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        while "a C call of minutes: running" not in demo.stdout.readline():
            pass
        demo.send_signal(number)
        _, err = demo.communicate(timeout=20)

    assert demo.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("width", [20, 60, 80, 120, 300])
def test_a_line_never_fills_the_last_column(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    job = DemoJob("mandelbrot 1280×800", "mandelbrot", {}, lambda _: "")

    drawn = line(JobState(job, "running", 3, 0.5, 12.3), width)

    assert len(drawn) < width


def test_a_bar_shows_the_part_that_is_done() -> None:
    assert bar(0.5, 4) == "██░░"
    assert bar(1.0, 4) == "████"


def test_a_bar_is_dotted_where_nobody_says() -> None:
    assert bar(None, 4) == "····"
