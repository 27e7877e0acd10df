"""An operator looks at the running program and steers it, by the commands, as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest

from supervisor.control.prometheus import PREFIX
from supervisor.devserver.app import DevServer
from tests.flows.test_crash import ended, mark_of, tagged_pids
from tests.flows.test_late_stop import hold_up_events
from tests.harness import (
    GENEROUS,
    HANDLERS,
    KEY,
    best,
    calls,
    event,
    events,
    finished_job,
    logged,
    program,
    reports,
    result_of,
    start_job,
)
from tests.terminal import on_a_terminal

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # the program brings its own loop; ours does not matter

HEAVY = {"aiohttp", "uvloop", "psutil", "structlog", "prometheus_client", "rich", "asyncio", "handlers"}

MORE = """
from supervisor import handler

@handler("more")
def more() -> None: ...
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def columns(self) -> dict[str, str]:
        return {line.split()[0]: line for line in self.out.splitlines() if line}


@pytest.fixture(autouse=True)
def _no_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def state() -> Iterator[Path]:
    """A state directory with a path so short that there is room for a socket in it."""
    with TemporaryDirectory() as folder:
        yield Path(folder) / "s"


async def run(*arguments: str, state: Path | None = None, python: tuple[str, ...] = (), **environment: str) -> Answer:
    """Run a command to its end."""
    place = () if state is None else ("--state-dir", str(state))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *python, "-m", "supervisor", *arguments, *place),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), GENEROUS)
    assert process.returncode is not None
    return Answer(process.returncode, out.decode(), err.decode())


async def shown(state: Path) -> Any:
    return json.loads((await run("status", "--json", state=state)).out)


@asynccontextmanager
async def quitting(url: str, state: Path, **changes: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that is told to quit in the end, and so leaves nothing to the tests that follow."""
    async with program(url, state, **changes) as process:
        yield process
        if process.returncode is None:
            process.send_signal(signal.SIGQUIT)
            await asyncio.wait_for(process.wait(), GENEROUS)


@asynccontextmanager
async def watched(
    server: DevServer, state: Path, action: str = "shows", parameters: Any = None, **changes: str
) -> AsyncIterator[tuple[str, str]]:
    """A program with a job that works; yields the run and the job."""
    async with quitting(server.url, state, **changes):
        given = {"until": str(state / "go")} if parameters is None else parameters
        run_id = await start_job(server, action, given)
        await event(server, run_id, "working")
        yield run_id, server.jobs(run_id)[-1].id


async def test_the_status_shows_a_job_at_work(server: DevServer, state: Path) -> None:
    given = {"until": str(state / "go"), "lines": ["first", "with mbx_a_secret"]}
    async with watched(server, state, parameters=given) as (run_id, job_id):
        status = await shown(state)
        while (busy := next(slot for slot in status["slots"] if slot["job"]))["job"]["cpu_seconds"] < 0.5:
            status = await shown(state)  # for CPU time there is no event
        table = await run("status", state=state)

        job = busy["job"]
        assert status["state"] == "serving"
        assert (job["job_id"], job["run_id"], job["action"], job["attempt"]) == (job_id, run_id, "shows", 1)
        assert (job["timeout"], job["memory_limit"], job["stopping"]) == (300.0, 2**30, None)
        assert job["progress"] == {"done": 3, "total": 8, "message": "pages"}
        assert job["last_line"] == "with ***"
        assert 0 < job["lease_left"] <= job["lease_length"]
        assert job["elapsed"] > job["cpu_seconds"] * 0.5  # of the process that it has started
        assert 2**20 < job["memory"] < 2**30
        assert busy["state"] == "busy"
        assert {slot["state"] for slot in status["slots"]} == {"busy", "idle"}
        assert "shows" in status["code"]["actions"]
        assert f"{job_id}#1" in table.out
        assert "3/8 (38%) pages" in table.out
        assert (table.code, table.err) == (0, "")


async def test_how_jobs_ended_is_remembered(server: DevServer, state: Path) -> None:
    async with watched(server, state):
        for action, parameters in (("echo", {}), ("raise", {}), ("segfault", {}), ("stuck-in-c", {})):
            await finished_job(server, await start_job(server, action, parameters))
        status = await shown(state)

    told = {ended["action"]: (ended["outcome"], ended["message"]) for ended in status["recent"]}
    assert told["echo"] == ("completed", None)
    assert told["raise"] == ("failed", "ValueError: there is no such page")
    assert told["segfault"][0] == "crashed"
    assert told["stuck-in-c"][0] == "timeout"


async def test_the_stack_of_a_job_inside_a_c_call(server: DevServer, state: Path) -> None:
    async with watched(server, state, "sits-in-c", {}) as (_, job_id):
        answer = await run("stack", f"{job_id}#1", state=state)

        assert answer.code == 0
        assert "in sits_in_c" in answer.out
        assert "supervisor/child/" not in answer.out


async def test_a_job_that_an_operator_cancels_says_so(server: DevServer, state: Path) -> None:
    async with watched(server, state, "sits-in-c", {}, cancel_grace="200ms") as (run_id, job_id):
        of_run = await run("cancel", run_id, state=state)
        answer = await run("cancel", job_id[:-1], state=state)
        await finished_job(server, run_id)
        status = await shown(state)

    assert (of_run.code, of_run.err.split()[-1]) == (1, job_id)
    assert (answer.code, answer.out) == (0, f"{job_id[:-1]} is asked to stop\n")
    (report,) = reports(server, job_id)
    assert report.body["error_type"] == "Cancelled"
    assert report.body["error_message"].startswith("cancelled by ")
    assert f"(uid {os.geteuid()}) over the control socket; it stopped" in report.body["error_message"]
    assert [ended["outcome"] for ended in status["recent"]] == ["cancelled"]


async def test_a_job_that_has_ended_is_shown_as_reporting_and_neither_stopped_nor_looked_at(
    server: DevServer, state: Path
) -> None:
    async with quitting(server.url, state, worker_id="one", workers="1"):
        let_through = hold_up_events(server)
        run_id = await start_job(server, "emits", {"count": 1})
        await server.until(lambda: calls(server, "events") or None)
        await logged(state, '"being reported"')
        job_id = server.jobs(run_id)[-1].id
        (first,) = (await shown(state))["slots"]
        answers = [await run(command, job_id, state=state) for command in ("stack", "cancel")]
        (second,) = (await shown(state))["slots"]
        figures = await scraped(state / "run" / "one.sock")
        let_through.set()
        job = await finished_job(server, run_id)
        await logged(state, '"completed"')
        (ended,) = (await shown(state))["recent"]

    assert (first["state"], first["job"]["job_id"], first["job"]["stopping"]) == ("reporting", job_id, None)
    assert first["job"]["elapsed"] == second["job"]["elapsed"] == ended["seconds"]
    sentence = f"Error: {job_id} has ended and is being reported\n"
    assert [(answer.code, answer.err) for answer in answers] == [(1, sentence)] * 2
    assert figures['children{state="reporting"}'] == 1
    assert not any(name.startswith("jobs_running") for name in figures)
    assert job.status == "completed"


async def test_a_job_that_succeeds_in_spite_of_an_operators_cancel_is_cancelled(server: DevServer, state: Path) -> None:
    async with quitting(server.url, state, cancel_grace="5s"):
        run_id = await start_job(server, "succeeds-in-spite-of-all")
        await event(server, run_id, "working")
        await run("cancel", server.jobs(run_id)[-1].id, state=state)

        job = await finished_job(server, run_id)

        assert reports(server, job.id)[0].body["error_type"] == "Cancelled"


async def test_draining_ends_the_program_after_its_jobs(server: DevServer, state: Path) -> None:
    async with quitting(server.url, state) as process:
        run_id = await start_job(server, "shows", {"until": str(state / "go")})
        await event(server, run_id, "working")

        assert (await run("drain", state=state)).code == 0

        assert (await shown(state))["state"] == "draining"
        (state / "go").touch()
        assert await asyncio.wait_for(process.wait(), GENEROUS) == 0
        assert server.run(run_id).status == "completed"


async def test_who_pauses_is_seen_until_somebody_resumes(server: DevServer, state: Path) -> None:
    async with watched(server, state):
        paused = await run("pause", state=state)
        while_paused = await shown(state)
        resumed = await run("resume", state=state)
        afterwards = await shown(state)

    told = "paused: nothing new is claimed; a claim that is open already may still bring a job\n"
    assert (paused.code, paused.out) == (0, told)
    assert while_paused["state"] == "paused"
    assert f"(uid {os.geteuid()}) over the control socket since " in while_paused["claims"]["reason"]
    assert (resumed.code, afterwards["state"], afterwards["claims"]["reason"]) == (0, "serving", None)


async def test_only_resume_ends_a_pause_by_command_and_it_ends_any(server: DevServer, state: Path) -> None:
    async with quitting(server.url, state) as process:
        await logged(state, '"serving"')
        await run("pause", state=state)
        process.send_signal(signal.SIGCONT)  # as systemd sends it, and a shell
        process.send_signal(signal.SIGTSTP)
        await logged(state, '"by":"SIGTSTP"')
        process.send_signal(signal.SIGCONT)
        await logged(state, "still paused: nothing is claimed until")
        after_both = await shown(state)
        process.send_signal(signal.SIGTSTP)
        while (state / "log").read_text().count('"by":"SIGTSTP"') < 2:
            await asyncio.sleep(0.01)
        await run("resume", state=state)
        after_that = await shown(state)

    assert after_both["state"] == "paused"
    assert "over the control socket since " in after_both["claims"]["reason"]
    assert (after_that["state"], after_that["claims"]["reason"]) == ("serving", None)


async def test_a_reload_is_waited_for_and_its_refusal_told(server: DevServer, state: Path, tmp_path: Path) -> None:
    handlers = tmp_path / "handlers"
    handlers.mkdir()
    (handlers / "shown.py").write_text((HANDLERS / "shown.py").read_text())
    async with watched(server, state, handlers=str(handlers)):
        (handlers / "more.py").write_text(MORE)
        taken = await run("reload", state=state)
        after_it = await shown(state)
        (handlers / "broken.py").write_text("def (")
        refused = await run("reload", state=state)
        after_that = await shown(state)
        late = await run("reload", "--timeout", "1ms", state=state)

    assert (late.code, late.err.endswith(" does not answer within 0.001 s; the reload goes on\n")) == (1, True)
    assert (taken.code, taken.out) == (0, "reloaded\n")
    assert (after_it["code"]["generation"], after_it["code"]["error"]) == (2, None)
    assert "more" in after_it["code"]["actions"]
    assert refused.code == 1
    assert "broken.py:1: SyntaxError" in refused.err
    assert after_that["code"]["generation"] == 2
    assert "broken.py:1: SyntaxError" in after_that["code"]["error"]


async def test_what_is_ending_is_not_paused(server: DevServer, state: Path) -> None:
    async with watched(server, state):
        await run("drain", state=state)

        answer = await run("pause", state=state)

        assert (answer.code, answer.err) == (1, "Error: the program is ending\n")


@pytest.mark.parametrize(
    "command", [("status",), ("status", "--json"), ("stack", "j"), ("cancel", "j"), ("pause",), ("drain",), ("reload",)]
)
async def test_where_nobody_runs_a_command_says_so(command: tuple[str, ...], state: Path) -> None:
    answer = await run(*command, state=state)

    assert answer.code == 1
    assert answer.out == ""
    assert answer.err.startswith("Error: no supervisor runs here: nobody listens in ")
    assert answer.err.count("\n") == 1


async def test_a_job_that_is_not_there_is_one_sentence(server: DevServer, state: Path) -> None:
    async with watched(server, state):
        for command in ("stack", "cancel"):
            answer = await run(command, "job/../nowhere", state=state)

            assert (answer.code, answer.err) == (1, "Error: no job 'job/../nowhere' runs here\n")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("cancel", ""), "Error: Invalid value for 'JOB': must not be empty"),
        (("status", "--json", "--watch"), "Error: --json and --watch exclude each other; GET /events streams JSON"),
    ],
)
async def test_what_makes_no_sense_is_refused(command: tuple[str, ...], sentence: str, state: Path) -> None:
    answer = await run(*command, state=state)

    assert (answer.code, answer.err.splitlines()[-1]) == (2, sentence)


async def test_of_two_one_is_named_by_its_worker_id_or_its_socket(server: DevServer, state: Path) -> None:
    async with quitting(server.url, state, worker_id="one"), quitting(server.url, state, worker_id="two"):
        for name in ("one", "two"):
            while not (state / "run" / f"{name}.sock").exists():
                await asyncio.sleep(0.02)

        neither = await run("status", state=state)
        by_name = await run("status", "--json", "--worker-id", "two", state=state)
        by_socket = await run("status", "--json", MOBIUS_SUPERVISOR_SOCKET=str(state / "run" / "one.sock"))
        (state / "settings.toml").write_text(f"state-dir = '{state}'\nworker-id = 'two'\n")
        by_settings = await run("status", "--json", MOBIUS_SUPERVISOR_CONFIG=str(state / "settings.toml"))

    assert neither.code == 2
    assert "one.sock" in neither.err
    assert "two.sock" in neither.err
    assert json.loads(by_name.out)["worker_id"] == "two"
    assert json.loads(by_socket.out)["worker_id"] == "one"
    assert json.loads(by_settings.out)["worker_id"] == "two"


async def test_after_a_sigkill_the_next_one_takes_the_place(server: DevServer, state: Path) -> None:
    async with watched(server, state, worker_id="one"):
        pass
    async with quitting(server.url, state, worker_id="one") as killed:
        await finished_job(server, await start_job(server, "echo"))
        end = asyncio.create_task(ended(list(tagged_pids(mark_of(killed.pid)))))
        killed.kill()
        await end
        await killed.wait()
    assert (await run("status", state=state)).code == 1

    async with quitting(server.url, state, worker_id="one") as process:
        await finished_job(server, await start_job(server, "echo"))

        assert (await shown(state))["pid"] == process.pid


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_the_page_is_where_the_log_says(server: DevServer, state: Path, host: str) -> None:
    if host == "[::1]" and not has_ipv6():
        pytest.skip("there is no IPv6 here")
    async with quitting(server.url, state, listen=f"{host}:0"):
        await logged(state, '"listening"')
        (page,) = re.findall(r'"page":"(.*?)"', (state / "log").read_text())
        async with aiohttp.ClientSession() as client, client.get(page) as answer:
            assert answer.status == 200

    assert page.startswith(f"http://{host}:")


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


async def test_what_jobs_did_can_be_scraped(server: DevServer, state: Path) -> None:
    async with quitting(server.url, state, worker_id="one", workers="1"):
        for action in ("fresh", "fresh", "segfault"):
            await finished_job(server, await start_job(server, action))
        figures = await scraped(state / "run" / "one.sock")
        while figures["child_starts_total"] < 4:
            figures = await scraped(state / "run" / "one.sock")

    ends = {reason: figures[f'child_exits_total{{reason="{reason}"}}'] for reason in ("recycle", "crash", "oom")}
    assert ends == {"recycle": 2, "crash": 1, "oom": 0}
    assert figures["job_queue_to_start_seconds_count"] == 3
    assert 0 < figures["job_queue_to_start_seconds_sum"] < GENEROUS


async def scraped(path: Path) -> dict[str, float]:
    """The figures of a program by name and labels."""
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession(connector=connector) as client, client.get("http://localhost/metrics") as answer:
        lines = re.findall(rf"^{PREFIX}(.+) (\S+)$", await answer.text(), re.MULTILINE)
    return {name: float(value) for name, value in lines}


async def test_a_command_loads_nothing_heavy_and_answers_at_once(server: DevServer, state: Path) -> None:
    job = "the job"
    commands = [["status"], ["status", "--json"], ["stack", job], ["pause"], ["resume"], ["reload"]]
    commands += [["spool", "ls"], ["cancel", job], ["drain"]]
    async with watched(server, state, "succeeds-in-spite-of-all", {}, cancel_grace="60s") as (_, job_id):
        for command in commands:
            arguments = [job_id if part is job else part for part in command]
            allowed = (
                {"structlog", "asyncio", "rich"} if command[0] == "spool" else set()
            )  # its log, and what that loads
            answer = await run(*arguments, state=state, python=("-X", "importtime"))
            loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in answer.err.splitlines()}

            async def cpu_of_it(arguments: list[str] = arguments) -> float:
                before = cpu_of_children()
                await run(*arguments, state=state)
                return cpu_of_children() - before

            assert answer.code == 0, answer.err
            assert "supervisor" in loaded
            assert loaded & HEAVY <= allowed, command
            assert await best(cpu_of_it, below=0.4) < 0.4, command  # seconds


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def test_output_is_forwarded_when_that_is_asked_for(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBIUS_SUPERVISOR_FORWARD_OUTPUT", "1")
    printed = ["first", f"second {KEY}", "third"]
    async with quitting(server.url, state):
        run_id = await start_job(server, "prints-lines", {"lines": printed})
        await finished_job(server, run_id)

    told = events(server, run_id, "log")
    assert {each["stream"] for each in told} == {"output"}
    assert "\n".join(each["line"] for each in told).split("\n") == ["first", "second ***", "third"]
    assert len(told) < 3


async def test_output_is_not_forwarded_otherwise(server: DevServer, state: Path) -> None:
    async with quitting(server.url, state):
        run_id = await start_job(server, "prints-lines", {"lines": ["secret"]})
        await finished_job(server, run_id)

    assert calls(server, "events") == []


async def test_every_line_about_a_job_says_which_and_where(server: DevServer, state: Path) -> None:
    async with watched(server, state, cancel_grace="200ms", log_level="debug") as (run_id, job_id):
        await finished_job(server, await start_job(server, "raise"))
        await finished_job(server, await start_job(server, "prints-lines", {"lines": ["a"]}))
        await finished_job(server, await start_job(server, "logs"))
        os.kill((await shown(state))["pid"], signal.SIGUSR1)
        await logged(state, '"event":"job"')
        await run("cancel", job_id, state=state)
        await finished_job(server, run_id)

    lines = [json.loads(line) for line in (state / "log").read_text().splitlines()]
    about_jobs = [line for line in lines if "job_id" in line]
    assert {line["event"] for line in about_jobs if line["logger"] == "handler"} == {"page 3 of the book is odd"}
    assert {line["event"] for line in about_jobs} >= {
        "a job is cancelled",
        "job",
        "claimed",
        "printed",
        "failed",
        "completed",
        "stopping the handler",
    }
    for line in about_jobs:
        assert {"job_id", "run_id", "action", "attempt", "slot", "pid"} <= set(line), line


async def test_a_job_that_is_over_in_a_moment_costs_no_line_unless_that_is_asked_for(
    server: DevServer, state: Path
) -> None:
    async with quitting(server.url, state):
        await finished_job(server, await start_job(server, "echo", {"value": 1}))
        slow = await start_job(server, "sleeps", {"seconds": 1.5})
        await finished_job(server, slow)

    lines = [json.loads(line) for line in (state / "log").read_text().splitlines()]
    told = [(line["run_id"], line["event"]) for line in lines if line["logger"] == "slot"]
    assert told == [(slow, "running"), (slow, "completed")]


async def test_a_job_cannot_steer_its_supervisor_whatever_it_does_to_hide(server: DevServer, state: Path) -> None:
    async with quitting(server.url, state, worker_id="one"):
        job = await finished_job(server, await start_job(server, "steers", {"path": str(state / "run" / "one.sock")}))
        status = await shown(state)
        paused = await run("pause", state=state)

    assert result_of(reports(server, job.id)[0]) == ["403", "403", "403"]
    assert status["state"] == "serving"
    assert paused.code == 0


TELLS_ALL = f"""
from supervisor import Context, handler

@handler("tells-all")
def tells_all(context: Context) -> None:
    context.progress(1, 2, "with {KEY}")
    context.emit("working", {{}})
    while True:
        context.check_cancelled()
"""


async def test_the_key_is_masked_in_all_that_is_shown(server: DevServer, state: Path, tmp_path: Path) -> None:
    (tmp_path / "tells.py").write_text(TELLS_ALL)
    (tmp_path / "broken.py").write_text(f"raise ValueError('{KEY} at import')")
    given = {"handlers": str(tmp_path), "cancel_grace": "0s"}
    async with watched(server, state, "tells-all", {}, **given, listen="127.0.0.1:0") as (_, job_id):
        (tmp_path / "worse.py").write_text(f"raise ValueError('{KEY} at reload')")
        refused = await run("reload", state=state)
        (page,) = re.findall(r'"page":"(.*?)"', (state / "log").read_text())
        async with aiohttp.ClientSession(page) as client:
            texts = [await (await client.get(path)).text() for path in ("status.json", "")]
        status = json.loads(texts[0])

    (job,) = [slot["job"] for slot in status["slots"] if slot["job"]]
    assert job["progress"] == {"done": 1, "total": 2, "message": "with ***"}
    assert "*** at import" in status["code"]["problems"][0]
    assert "*** at reload" in status["code"]["error"]
    assert job["job_id"] == job_id
    assert KEY not in "".join([*texts, refused.err])


class Terminal:
    """A command on a terminal of its own, and what it has shown there."""

    def __init__(self, *arguments: str) -> None:
        self.process, self._ours = on_a_terminal(arguments, TERM="xterm", COLUMNS="160", LINES="40")
        os.set_blocking(self._ours, False)
        self.shown = b""

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    async def until(self, text: str) -> None:
        """Wait until it shows `text` that it has not shown before."""
        seen = len(self.shown)
        async with asyncio.timeout(GENEROUS):
            while text.encode() not in self.shown[seen:]:
                with contextlib.suppress(BlockingIOError):
                    self.shown += os.read(self._ours, 65536)
                await asyncio.sleep(0.02)

    async def ended(self) -> int:
        code = await asyncio.to_thread(self.process.wait, GENEROUS)
        os.close(self._ours)
        return code


async def test_the_status_is_shown_anew_until_ctrl_c_or_the_end_of_the_program(server: DevServer, state: Path) -> None:
    async with watched(server, state) as (run_id, job):
        watching = Terminal("status", "--watch", "--state-dir", str(state))
        await watching.until(job)
        await server.cancel_run(run_id)
        await watching.until("Cancelled")
        watching.press(b"\x03")
        assert await watching.ended() == 0

        watching = Terminal("status", "--watch", "--state-dir", str(state))
        await watching.until(job)
        await run("drain", state=state)
        await watching.until("no supervisor")
        assert await watching.ended() == 1
