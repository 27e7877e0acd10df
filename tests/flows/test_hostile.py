"""Handlers, folders, servers and machines at their worst: one job is lost at most, and it is told why."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import unquote

import psutil
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.call_log import Call
from supervisor.exit_code import ExitCode
from supervisor.linux.process_tag import tagged_pids
from supervisor.linux.syscalls import children_of
from supervisor.process import reaper as family
from tests.flows.test_crash import mark_of
from tests.flows.test_lease_loss import ended
from tests.freezer import frozen, needs_a_freezer
from tests.harness import (
    GENEROUS,
    HANDLERS,
    KEY,
    PROJECT,
    calls,
    event,
    finished_job,
    is_alive,
    program,
    reports,
    result_of,
    start_job,
    supervising,
    zygote_of,
)
from tests.somebody import UNPRIVILEGED, give_to_somebody

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on; most of these are the whole

MEBI = 2**20
NOBODY = 65534
HALF_A_FRAME = (100).to_bytes(4, "big") + b"half"
WORKING = "from supervisor import handler\n@handler('works')\ndef works(): ...\n"


async def until(is_so: Callable[[], Any]) -> None:
    """Wait for what no server tells of: files."""
    async with asyncio.timeout(GENEROUS):
        while not is_so():
            await asyncio.sleep(0.01)


def peak_memory(pid: int) -> int:
    """Bytes of memory that a process had at most."""
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(peak) * 1024


def logged(state: Path) -> str:
    return (state / "log").read_text()


def errors(state: Path) -> list[str]:
    """The lines of a program's log that say what went wrong."""
    return [line for line in logged(state).splitlines() if re.search(r"error|Traceback|critical", line)]


async def report_of(server: DevServer, run: str) -> Any:
    """The body of the one report of a job."""
    return (await report_call(server, run)).body


async def report_call(server: DevServer, run: str) -> Call:
    """The one report of a job."""
    (report,) = reports(server, (await finished_job(server, run)).id)
    return report


# What a child says, and whether it moves


BOTTOMLESS = """
import ctypes, sys
from supervisor import handler

class Pit:
    def __str__(self):
        return str(self)

@handler("bottomless")
def bottomless():
    sys.setrecursionlimit(10**9)
    str(Pit())

@handler("bottomless-in-c")
def bottomless_in_c():
    ctypes.CDLL(None).regcomp(ctypes.create_string_buffer(1024), b"(" * 1_000_000, 1)  # glibc's calls itself
"""


async def test_a_recursion_without_any_limit_ends_its_child_and_nothing_else(
    server: DevServer, state: Path, tmp_path: Path
) -> None:
    (tmp_path / "pit.py").write_text(BOTTOMLESS + WORKING)
    async with supervising(server, state, handlers=str(tmp_path), workers="1"):
        bodies = [await report_of(server, await start_job(server, f"bottomless{kind}")) for kind in ("", "-in-c")]
        after = await finished_job(server, await start_job(server, "works"))

    ends = [(body["status"], body["error_type"]) for body in bodies]
    # Since Python 3.12 the interpreter counts its own recursion in C, whatever limit a program sets.
    assert ends[0] == ("failed", "ChildDied" if sys.version_info < (3, 12) else "RecursionError")
    assert ends[1] == ("failed", "ChildDied")
    assert "was killed by SIGSEGV" in bodies[1]["error_message"]
    assert after.status == "completed"


async def test_a_child_that_stands_still_is_killed_after_a_cancel(server: DevServer, state: Path) -> None:
    async with supervising(server, state, cancel_grace="200ms"):
        run = await start_job(server, "python-loop")
        (pid,) = (await event(server, run, "working"))["pids"]
        os.kill(pid, signal.SIGSTOP)
        await server.cancel_run(run)
        body = await report_of(server, run)
        left = is_alive(pid)

    assert (body["status"], body["error_type"]) == ("failed", "Cancelled")
    assert not left


async def test_a_child_that_stands_still_is_killed_at_its_timeout(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1"):
        body = await report_of(server, await start_job(server, "stands-still"))
        after = await report_of(server, await start_job(server, "echo"))

    assert (body["status"], body["error_type"]) == ("failed", "Timeout")
    assert after["status"] == "completed"


@pytest.mark.root("only root can freeze processes")
@needs_a_freezer
async def test_a_child_that_cannot_be_killed_is_left_to_its_lease_and_its_slot_goes_on(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "KILL_TIMEOUT", 0.3)
    async with supervising(server, state, workers="1", cancel_grace="50ms"):
        run = await start_job(server, "python-loop")
        (pid,) = (await event(server, run, "working"))["pids"]
        with frozen(pid):
            await server.cancel_run(run)
            after = await report_of(server, await start_job(server, "echo"))
            job = server.jobs(run)[-1]
            told = len(calls(server, "heartbeat", job.id))
            more = await report_of(server, await start_job(server, "echo"))
            assert is_alive(pid)

    assert after["status"] == more["status"] == "completed"
    assert not reports(server, job.id)
    assert len(calls(server, "heartbeat", job.id)) == told


@pytest.mark.root("only root can freeze processes")
@needs_a_freezer
async def test_what_a_job_left_behind_and_cannot_be_killed_holds_up_neither_its_report_nor_a_shutdown(
    server: DevServer, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "KILL_TIMEOUT", 0.2)
    source = """
        import subprocess, time
        from pathlib import Path
        from supervisor import handler
        from supervisor.child import descendants
        descendants.KILL_TIMEOUT = 0.2
        @handler("leaves")
        def leaves(context, go_on):
            left = subprocess.Popen(["sleep", "3600"], start_new_session=True)
            context.emit("working", {"pids": [left.pid]})
            while not Path(go_on).exists():
                time.sleep(0.001)
        """
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "leaving.py").write_text(dedent(source))
    go_on = tmp_path / "go-on"
    async with supervising(server, state, workers="1", handlers=str(tmp_path / "handlers")) as supervisor:
        run = await start_job(server, "leaves", {"go_on": str(go_on)})
        (pid,) = (await event(server, run, "working"))["pids"]
        with frozen(pid):
            go_on.touch()
            body = await report_of(server, run)
            supervisor.signal(signal.SIGTERM)
            code = await supervisor.exit_code()
            assert is_alive(pid)
        os.waitpid(pid, 0)

    assert (body["status"], code) == ("completed", ExitCode.DRAINED)


@pytest.mark.parametrize("level", [0, 25, 99])
async def test_a_line_of_any_level_is_logged_and_its_job_goes_on(server: DevServer, state: Path, level: int) -> None:
    async with supervising(server, state, workers="1"):
        run = await start_job(server, "logs", {"level": level})
        assert (await report_of(server, run))["status"] == "completed"


async def test_a_log_that_nobody_reads_holds_up_no_heartbeat(server: DevServer, state: Path) -> None:
    reading, writing = os.pipe()  # and no more is done with it
    state.mkdir()
    command = [sys.executable, "-m", "supervisor", "--base-url", server.url, "--project", PROJECT, "--workers", "1"]
    command += ["--handlers", str(HANDLERS), "--state-dir", str(state)]
    process = await asyncio.create_subprocess_exec(
        *command, stderr=writing, env={**os.environ, "MOBIUS_API_KEY": KEY}, start_new_session=True
    )
    try:
        run = await start_job(server, "logs-much", {"lines": 20_000})
        await event(server, run, "said")
        job = server.jobs(run)[-1]
        told = len(calls(server, "heartbeat", job.id))
        await server.until(lambda: len(calls(server, "heartbeat", job.id)) > told + 3, timeout=GENEROUS)
        job = await finished_job(server, run)
    finally:
        process.kill()
        await process.wait()
        os.close(reading)
        os.close(writing)

    assert job.status == "completed"


async def test_what_a_handler_logs_too_fast_is_dropped_and_counted(server: DevServer, state: Path) -> None:
    with capture_logs() as said:
        async with supervising(server, state, workers="1"):
            await report_of(server, await start_job(server, "logs-much", {"lines": 20_000, "seconds": 0.0}))

    lines = [line["event"] for line in said if line.get("logger") == "handler"]
    assert 500 < len(lines) < 20_000
    assert re.fullmatch(r"\[\d+ lines of the handler dropped: .*\]", lines[-1])


@pytest.mark.parametrize("where", ["memory", "disk", "nowhere"])
async def test_a_result_that_its_child_could_still_cut_is_not_taken(server: DevServer, state: Path, where: str) -> None:
    async with supervising(server, state, workers="1"):
        body = await report_of(server, await start_job(server, "hands-over-what-it-keeps", {"where": where}))
        after = await report_of(server, await start_job(server, "huge-result", {"size": 3 * MEBI}))

    assert "handed over a result that it could still change" in body["error_message"]
    assert after["status"] == "completed"


async def test_a_child_that_does_not_take_up_its_job_is_killed_and_its_job_told_why(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.process.child.PICK_UP_TIMEOUT", 0.2)
    async with supervising(server, state, workers="1"):
        idle = result_of(await report_call(server, await start_job(server, "pid")))
        os.kill(idle, signal.SIGSTOP)
        body = await report_of(server, await start_job(server, "echo"))
        after = await report_of(server, await start_job(server, "sleeps", {"seconds": 0.6}))

    assert body["error_type"] == "ChildDied"
    assert "did not take up its job within 0.2 s" in body["error_message"]
    assert after["status"] == "completed"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ((2**32 - 1).to_bytes(4, "big") + b"x", "announced a frame of 4294967295 bytes"),
        (b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1", "sent a frame that is no message"),
        (b"GET / HTTP/1.1\r\n\r\n", "announced a frame of"),
    ],
)
async def test_a_child_that_breaks_the_protocol_fails_its_job_and_no_other(
    server: DevServer, state: Path, said: bytes, reason: str
) -> None:
    async with supervising(server, state, workers="1"):
        body = await report_of(server, await start_job(server, "says-and-is-silent", {"said": said.hex()}))
        after = await report_of(server, await start_job(server, "echo"))

    assert (body["status"], body["error_type"]) == ("failed", "ChildDied")
    assert reason in body["error_message"]
    assert after["status"] == "completed"


async def test_half_a_frame_and_silence_is_ended_by_a_cancel(server: DevServer, state: Path) -> None:
    async with supervising(server, state, cancel_grace="200ms"):
        run = await start_job(server, "says-and-is-silent", {"said": HALF_A_FRAME.hex()})
        await event(server, run, "working")
        await server.cancel_run(run)
        body = await report_of(server, run)

    assert (body["status"], body["error_type"]) == ("failed", "Cancelled")


async def test_half_a_frame_and_silence_is_ended_by_the_timeout(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        body = await report_of(server, await start_job(server, "says-and-times-out", {"said": HALF_A_FRAME.hex()}))

    assert body["status"] == "failed"
    assert "timeout" in body["error_message"]


# Floods and sizes


async def test_a_flood_of_output_is_dropped_and_the_log_says_how_much(server: DevServer, state: Path) -> None:
    async with program(server.url, state) as process:
        await finished_job(server, await start_job(server, "echo"))
        before = peak_memory(process.pid)
        job = await finished_job(server, await start_job(server, "floods-output", {"size": 200 * MEBI}))
        grown = peak_memory(process.pid) - before

    dropped = sum(map(int, re.findall(r"\[(\d+) bytes of output dropped", logged(state))))
    assert job.status == "completed"
    assert (state / "log").stat().st_size < 10 * MEBI
    assert 150 * MEBI < dropped <= 201 * MEBI
    assert grown < 32 * MEBI


@dataclass
class Dispenser:
    """A server that gives each claim away once, and measures the reports instead of keeping them."""

    claims: list[bytes]
    url: str = ""
    reports: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """By job id: the length of a report and its first bytes."""
    beats: dict[str, list[float]] = field(default_factory=dict)
    """By job id: when each heartbeat came."""
    cancelled: set[str] = field(default_factory=set)
    completed: int = 0
    events: int = 0
    """Calls with events, of any job."""
    told: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        call = request.raw_path.rpartition("/")[2]
        if call == "claim":
            if self.claims:
                return web.Response(body=self.claims.pop(0), content_type="application/json")
            await asyncio.sleep(0.2)
            return web.Response(status=204)
        job_id = unquote(request.raw_path.split("/")[-2])
        if call == "heartbeat":
            self.beats.setdefault(job_id, []).append(time.monotonic())
            return web.json_response({"ok": True, "directives": {"should_cancel": job_id in self.cancelled}})
        self.events += call == "events"
        if call == "complete":
            size, head = 0, b""
            async for piece in request.content.iter_chunked(MEBI):
                size, head = size + len(piece), (head + piece)[: 64 * 1024]
            self.reports[job_id] = (size, head)
            self.completed += 1
            self.told.set()
        return web.Response(status=204)

    async def until_told(self, count: int = 1) -> list[bytes]:
        """The first bytes of all reports, once there are so many."""
        async with asyncio.timeout(GENEROUS):
            while len(self.reports) < count:
                self.told.clear()
                await self.told.wait()
        return [head for _, head in self.reports.values()]


@asynccontextmanager
async def dispensing(*claims: bytes) -> AsyncIterator[Dispenser]:
    dispenser = Dispenser(list(claims))
    runner = web.ServerRunner(web.Server(dispenser.answer), shutdown_timeout=0.1)  # no router: ids may be anything
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    dispenser.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield dispenser
    finally:
        await runner.cleanup()


def claim(action: str, parameters: bytes = b"{}", job_id: str = "job-1", interval: float = 1) -> bytes:
    """A claimed job as JSON; the parameters exactly as they are given."""
    fields = {"job_id": job_id, "run_id": "run-1", "action": action, "attempt": 1}
    fields["heartbeat_interval_seconds"] = interval
    return json.dumps(fields).encode()[:-1] + b', "parameters": ' + parameters + b"}"


async def test_a_flood_of_events_delays_no_other_jobs_heartbeats(state: Path) -> None:
    # By a server that keeps nothing: one that stores the flood would be late itself.
    async with dispensing() as dispenser, program(dispenser.url, state, lease_ttl="10s"):
        dispenser.claims.append(claim("floods-events", b'{"count": 1000000}', job_id="flood"))
        async with asyncio.timeout(GENEROUS):
            while dispenser.events < 10:
                await asyncio.sleep(0.01)
        dispenser.claims.append(claim("sleeps", b'{"seconds": 1.5}', job_id="other", interval=0.2))
        await dispenser.until_told()
        during = dispenser.events
        dispenser.cancelled.add("flood")
        reports = await dispenser.until_told(2)

    beats = dispenser.beats["other"]
    assert [json.loads(report)["status"] for report in reports] == ["completed", "failed"]
    assert during > 100  # the flood went on meanwhile
    assert len(beats) >= 5  # seven are due
    assert sorted(later - earlier for earlier, later in pairwise(beats))[len(beats) // 2] < 0.4  # one is due each 0.2 s


async def test_a_malformed_claim_costs_one_line_and_neither_child_nor_slot(state: Path) -> None:
    malformed = [claim("pid", job_id=""), claim(""), claim("pid").replace(b'"attempt": 1', b'"attempt": -1')]

    async with dispensing(claim("pid", job_id="before")) as dispenser, program(dispenser.url, state, workers="1"):
        (before,) = await dispenser.until_told()
        dispenser.claims += [*malformed, claim("pid", job_id="after")]
        after = (await dispenser.until_told(2))[-1]

    assert result_text(before) == result_text(after)
    assert logged(state).count("the claim is malformed") == len(malformed)
    assert "Traceback" not in logged(state)


async def test_jobs_that_were_not_asked_for_are_not_claimed_without_a_pause_and_told_once(state: Path) -> None:
    unknown = [claim("unknown", job_id=f"unknown-{number}") for number in range(1000)]

    async with dispensing(*unknown) as dispenser, program(dispenser.url, state, workers="16"):
        reports = await dispenser.until_told(4)
        await asyncio.sleep(1.0)
        burned = len(dispenser.reports)
        dispenser.claims[:] = [claim("echo", b'{"text": "known"}', job_id="known")]
        while "known" not in dispenser.reports:
            await dispenser.told.wait()
            dispenser.told.clear()

    assert {json.loads(report)["error_type"] for report in reports} == {"ActionNotRegistered"}
    assert burned < 20
    assert logged(state).count("actions that it was not asked for") == 1


async def test_a_result_of_256_mib_passes_through_without_being_held(state: Path) -> None:
    size = 256 * MEBI

    async with dispensing() as dispenser, program(dispenser.url, state) as process:
        dispenser.claims.append(claim("echo", job_id="small"))
        await dispenser.until_told()
        before = peak_memory(process.pid)
        dispenser.claims.append(claim("huge-result", json.dumps({"size": size}).encode(), job_id="huge"))
        await dispenser.until_told(2)
        grown = peak_memory(process.pid) - before

    length, _ = dispenser.reports["huge"]
    assert length > size * 4 // 3
    assert grown < 64 * MEBI


async def test_parameters_of_32_mib_reach_the_handler(state: Path) -> None:
    text = b'{"text": "' + b"x" * (32 * MEBI) + b'"}'

    async with dispensing(claim("measures", text)) as dispenser, program(dispenser.url, state):
        (report,) = await dispenser.until_told()

    assert result_text(report) == str(32 * MEBI)


def result_text(report: bytes) -> str:
    return base64.b64decode(json.loads(report)["result_b64"]).decode()


# Bombs


async def test_a_stack_overflow_in_c_fails_the_job_and_names_the_signal(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        body = await report_of(server, await start_job(server, "overflows-the-stack"))

    assert (body["status"], body["error_type"]) == ("failed", "ChildDied")
    assert "SIGSEGV" in body["error_message"] or "SIGABRT" in body["error_message"]


@pytest.mark.parametrize("then", ["return", "die"])
async def test_all_of_a_fork_bomb_is_gone_after_the_job(
    server: DevServer, state: Path, tmp_path: Path, then: str
) -> None:
    note = tmp_path / "pids"
    note.touch()

    async with supervising(server, state, workers="1"):
        job = await finished_job(server, await start_job(server, "fork-bomb", {"note": str(note), "then": then}))
        pids = [int(pid) for pid in note.read_text().split()]
        left = [pid for pid in pids if is_alive(pid)]
        after = await report_of(server, await start_job(server, "echo"))

    assert job.status == ("completed" if then == "return" else "failed")
    assert len(pids) == 100
    assert left == []
    assert after["status"] == "completed"


# What a handler does to its process


@pytest.mark.parametrize(
    "what",
    [
        "threads",
        "descriptors",
        "stdin",
        "folder",
        "limits",
        "umask",
        "signals",
        "timer",
        "profiling-timer",
        "processors",
        "raw-thread",
        "stdout-replaced",
        "stdout-closed",
        "stdout-detached",
    ],
)
async def test_what_a_handler_spoils_is_as_before_for_the_next_job(server: DevServer, state: Path, what: str) -> None:
    async with supervising(server, state, workers="1"):
        before = await finished_job(server, await start_job(server, "condition"))
        spoiled = await report_of(server, await start_job(server, "spoils", {"what": what}))
        after = await finished_job(server, await start_job(server, "condition"))

    assert spoiled["status"] == "completed"
    assert result_of(reports(server, after.id)[0]) == result_of(reports(server, before.id)[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_handler_that_signals_itself_fails_or_stops_alone(
    server: DevServer, state: Path, number: signal.Signals
) -> None:
    async with supervising(server, state, workers="1"):
        body = await report_of(server, await start_job(server, "die-by-signal", {"number": number}))
        after = await report_of(server, await start_job(server, "echo"))

    assert body["status"] == "failed"
    assert after["status"] == "completed"


async def test_a_handler_that_terminates_the_supervisor_drains_it(server: DevServer, state: Path) -> None:
    async with program(server.url, state) as process:
        run = await start_job(server, "signals-its-parents-group", {"number": signal.SIGTERM})
        job = await finished_job(server, run)
        async with asyncio.timeout(GENEROUS):
            code = await process.wait()

    assert job.status == "completed"
    assert code == ExitCode.DRAINED


async def test_a_handler_that_kills_the_supervisor_dies_with_it(server: DevServer, state: Path) -> None:
    async with program(server.url, state) as process:
        await finished_job(server, await start_job(server, "echo"))
        mark = mark_of(process.pid)
        await start_job(server, "signals-its-parents-group", {"number": signal.SIGKILL})
        async with asyncio.timeout(GENEROUS):
            code = await process.wait()
        await until(lambda: not list(tagged_pids(mark)))

    assert code == -signal.SIGKILL


# Handlers folders that keep the program from starting


@asynccontextmanager
async def program_of(server: DevServer, state: Path, source: str, **changes: str) -> AsyncIterator[Any]:
    """The program with one handler module."""
    folder = state.parent / "modules"
    folder.mkdir()
    (folder / "module.py").write_text(dedent(source))
    async with program(server.url, state, handlers=str(folder), **changes) as process:
        yield process


FORK_HOOK = "import os\nos.register_at_fork(after_in_child=lambda: os._exit(1))\n"
PICKY_HOOK = """
import os
zygote = os.getpid()
def die_in_the_child():
    if os.getppid() != zygote:
        os._exit(1)
os.register_at_fork(after_in_child=die_in_the_child)
"""


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("while True: pass", "took longer than 1 s; no handler could be loaded"),
        (
            "import os, sys\nprint('bye', flush=True)\nos._exit(7)",
            "exited with code 7: bye; no handler could be loaded",
        ),
        ("import sys\nsys.exit(0)", "no handler could be loaded"),
        ("import os\nos.abort()", "was killed by SIGABRT"),
        (FORK_HOOK + WORKING, "could not be forked"),
        (PICKY_HOOK + WORKING, "a child exited with code 1"),
    ],
)
async def test_a_program_that_cannot_have_children_says_why_in_one_line_and_exits_with_3(
    server: DevServer, state: Path, source: str, sentence: str
) -> None:
    async with program_of(server, state, source, import_timeout="1s" if "while" in source else "20s") as process:
        async with asyncio.timeout(GENEROUS):
            code = await process.wait()

    (line,) = [line for line in logged(state).splitlines() if "cannot start" in line]
    assert code == ExitCode.NO_HANDLER
    assert sentence in line
    assert "Traceback" not in logged(state)


async def test_a_slow_import_is_waited_for(server: DevServer, state: Path) -> None:
    async with program_of(server, state, f"import time\ntime.sleep(1.2)\n{WORKING}"):
        job = await finished_job(server, await start_job(server, "works"))

    assert job.status == "completed"


async def test_threads_of_an_import_are_warned_about_and_jobs_run(server: DevServer, state: Path) -> None:
    threads = "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"

    async with program_of(server, state, threads + WORKING):
        job = await finished_job(server, await start_job(server, "works"))

    assert job.status == "completed"
    assert [line for line in logged(state).splitlines() if "warning" in line and "thread" in line]


# What a server hands out


@pytest.mark.parametrize("job_id", ["a/b", "a b", "Ü-日本", "..", ".", "a?b#c%2F", "-rf", "a\nb\x1b[31m"])
async def test_a_job_of_any_id_is_run_and_reported_under_it(state: Path, job_id: str) -> None:
    async with dispensing(claim("echo", job_id=job_id)) as dispenser, supervising(dispenser, state):
        (report,) = await dispenser.until_told()

    assert list(dispenser.reports) == [job_id]
    assert json.loads(report)["status"] == "completed"


async def test_a_job_of_an_unknown_action_is_reported_as_such(state: Path) -> None:
    async with dispensing(claim("nobody's")) as dispenser, supervising(dispenser, state):
        (report,) = await dispenser.until_told()

    assert json.loads(report)["error_type"] == "ActionNotRegistered"


async def test_a_job_that_is_handed_out_again_while_it_runs_is_run_once(state: Path) -> None:
    twins = [claim("sleeps", b'{"seconds": 1.5}')] * 3

    async with dispensing(*twins) as dispenser, supervising(dispenser, state, workers="4"):
        await dispenser.until_told()
        await until(lambda: not dispenser.claims)

    assert dispenser.completed == 1


@pytest.mark.parametrize(
    "parameters",
    [
        b'{"deep": ' + b'{"a":' * 500 + b"1" + b"}" * 501,
        b'{"__proto__": 1, "../x": "\\u0000", "": null}',
        b'{"number": 1e999, "integer": ' + b"9" * 5000 + b"}",
        b'{"text": "\\u001b[2J\\u001b]0;title\\u0007\\r\\n"}',
    ],
)
async def test_hostile_parameters_end_in_a_report_and_harm_no_other_job(state: Path, parameters: bytes) -> None:
    claims = [claim("anything", parameters, "hostile"), claim("echo", job_id="after")]

    async with dispensing(*claims) as dispenser, supervising(dispenser, state, workers="1"):
        await dispenser.until_told(2)

    hostile, after = (json.loads(dispenser.reports[name][1]) for name in ("hostile", "after"))
    assert hostile["status"] == "completed" or hostile["error_type"] in ("InvalidParameters", "UnicodeEncodeError")
    assert after["status"] == "completed"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"text": "\\ud800 \\udfff"}', "a lone surrogate"),
        (b'{"\\ud800": 1}', "a lone surrogate"),
    ],
    ids=["deep", "text", "name"],
)
async def test_parameters_that_nobody_can_read_end_in_a_report(state: Path, parameters: bytes, message: str) -> None:
    claims = [claim("anything", parameters, "hostile"), claim("echo", job_id="after")]

    async with dispensing(*claims) as dispenser, program(dispenser.url, state, workers="1"):
        await dispenser.until_told(2)

    hostile, after = (json.loads(dispenser.reports[name][1]) for name in ("hostile", "after"))
    assert hostile["error_type"] == "InvalidParameters"
    assert message in hostile["error_message"]
    assert after["status"] == "completed"


async def test_no_escape_sequence_reaches_the_terminal(server: DevServer, state: Path) -> None:
    async with program(server.url, state):
        await finished_job(
            server, await start_job(server, "prints-raw", {"text": "red \x1b[31m \x9b31m title \x1b]0;x\x07"})
        )

    assert "red " in logged(state)
    assert not set("\x1b\x9b\x07") & set(logged(state))


# The machine


def limit_descriptors(process: asyncio.subprocess.Process, most: int) -> None:
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most, 4096))


async def test_a_supervisor_without_descriptors_backs_off_and_goes_on_once_there_are_some(state: Path) -> None:
    settings = DevServerSettings(heartbeat_interval=0.2, lease_ttl=60, journal=True)  # nobody's lease is the matter
    async with DevServer(settings) as server, program(server.url, state, workers="1", lease_ttl="60s") as process:
        await finished_job(server, await start_job(server, "echo"))
        run = await start_job(server, "die-slowly", {"seconds": 0.5})
        (pid,) = (await event(server, run, "working"))["pids"]
        limit_descriptors(process, 3)
        await ended([pid])
        await until(lambda: "search for orphans failed" in logged(state))
        limit_descriptors(process, 1024)
        dead = await finished_job(server, run)
        after = await finished_job(server, await start_job(server, "echo"))

    assert (dead.error_type, after.status) == ("ChildDied", "completed")
    assert "Traceback" not in logged(state)
    assert "Too many open files" in logged(state)
    assert len(logged(state).splitlines()) < 30


def first_free_descriptor(pid: int) -> int:
    used = {int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used)


@pytest.mark.root("only root can look at the descriptors of a process that is not dumpable")
async def test_a_big_result_passes_a_supervisor_that_has_no_descriptor_left(server: DevServer, state: Path) -> None:
    jobs = []
    async with program(server.url, state, workers="1") as process:
        await finished_job(server, await start_job(server, "sleeps", {"seconds": 0.5}))  # all connections are there
        while "no free descriptor for a result" not in logged(
            state
        ):  # there was, once what was open for a moment was closed
            limit_descriptors(process, first_free_descriptor(process.pid))
            jobs.append(await finished_job(server, await start_job(server, "big-result", {"size": 3 * MEBI})))

    for job in jobs:
        (report,) = reports(server, job.id)
        assert (job.status, job.attempt) == ("completed", 1)
        assert len(base64.b64decode(report.body["result_b64"])) == 3 * MEBI


async def test_a_zygote_without_descriptors_leaves_with_a_word_and_is_replaced(server: DevServer, state: Path) -> None:
    async with program(server.url, state, workers="1") as process:
        await finished_job(server, await start_job(server, "echo"))
        resource.prlimit(zygote_of(process.pid), resource.RLIMIT_NOFILE, (5, 4096))
        dead = await finished_job(server, await start_job(server, "die-by-exit", {"code": 1}))
        # There may be a child in reserve: that its successor cannot be forked is seen later.
        await until(lambda: "no more children can be forked from here: Too many open files" in logged(state))
        after = await finished_job(server, await start_job(server, "echo"))

    assert (dead.error_type, after.status) == ("ChildDied", "completed")
    assert "Traceback" not in logged(state)


def limit_processes(pid: int, most: int) -> None:
    """How many processes there may be of a user for this process to start another one; it need not be our own."""
    subprocess.run([*UNPRIVILEGED, "prlimit", f"--pid={pid}", f"--nproc={most}:4096"], check=True)


@pytest.mark.root("only root can become another user")
async def test_a_supervisor_that_cannot_start_a_process_says_so_and_ends_without_a_traceback(
    server: DevServer, state: Path
) -> None:
    give_to_somebody(state)

    async with program(server.url, state, (*UNPRIVILEGED, "prlimit", "--nproc=6")) as process:
        code = await process.wait()

    assert code == ExitCode.NO_HANDLER
    assert "could not be started: Resource temporarily unavailable" in logged(state)
    assert "Traceback" not in logged(state)


@pytest.mark.root("only root can become another user")
async def test_a_supervisor_that_may_not_fork_claims_nothing_and_goes_on_once_it_may(
    server: DevServer, state: Path, somebodys_handlers: str
) -> None:
    give_to_somebody(state)

    options = {"handlers": somebodys_handlers, "workers": "1", "spool_after": "0s"}
    async with program(server.url, state, UNPRIVILEGED, **options) as process:
        await finished_job(server, await start_job(server, "echo"))
        await until(lambda: len(children_of(process.pid)) == 3)  # the zygote, a child, and the spare
        first = min(children_of(process.pid), key=lambda pid: psutil.Process(pid).create_time())
        for pid in (process.pid, first):  # the supervisor and its zygote
            limit_processes(pid, 1)
        for _ in range(2):
            dead = await finished_job(server, await start_job(server, "die-by-exit", {"code": 1}))
        waiting = await start_job(server, "echo")
        await until(lambda: "no child for a slot" in logged(state))
        before = server.jobs(waiting)[0].status
        for pid in (process.pid, first):
            limit_processes(pid, 4096)
        after = await finished_job(server, waiting)

    failed = [line for line in logged(state).splitlines() if "no child for a slot" in line]
    assert (dead.error_type, before, after.status) == ("ChildDied", "pending", "completed")
    assert all("fork: Resource temporarily unavailable" in line and "retry_in" in line for line in failed)
    assert len(failed) == 1
    assert "no slot is without a child any more" in logged(state)
    assert "Traceback" not in logged(state)


def in_own_mounts(mount: str) -> list[str]:
    """The command that runs a program where a small file system was mounted first; skips where that is not allowed."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not permitted here")
    return ["unshare", "-m", "sh", "-ec", f'{mount}; exec "$@"', "sh"]


@pytest.mark.root("only root can mount")
@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        (
            "mount -t tmpfs -o size=64k,nr_inodes=2 none {}; head -c 1M /dev/zero > {}/f || true",
            "No space left on device",
        ),
        ("mount -t tmpfs -o ro none {}", "Read-only file system"),
    ],
)
async def test_a_state_directory_that_cannot_be_used_is_one_line_and_exit_2(
    server: DevServer, state: Path, tmp_path: Path, mount: str, sentence: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()

    async with program(server.url, state, in_own_mounts(mount.format(disk, disk)), state_dir=str(disk)) as process:
        async with asyncio.timeout(GENEROUS):
            code = await process.wait()

    assert [sentence in line for line in logged(state).splitlines() if "state directory" in line] == [True]
    assert code == ExitCode.USAGE
    assert "Traceback" not in logged(state)


@pytest.mark.root("only root can mount")
async def test_jobs_are_run_and_reported_while_the_disk_is_full(server: DevServer, state: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=256k none {disk}"
    refused = 0

    async def refuse(call: Call) -> web.StreamResponse | None:
        nonlocal refused
        refused += call.name == "complete"
        return web.Response(status=503) if call.name == "complete" and refused <= 2 else None

    async with program(server.url, state, in_own_mounts(mount), state_dir=str(disk)) as process:
        await finished_job(server, await start_job(server, "echo"))
        fill = Path(f"/proc/{process.pid}/root{disk}/full")
        with suppress(OSError):
            fill.write_bytes(bytes(MEBI))
        server.intercept = refuse
        job = await finished_job(server, await start_job(server, "big-result", {"size": 4 * MEBI}))

    assert job.status == "completed"
    assert "No space left on device" in logged(state)
    assert "Traceback" not in logged(state)
