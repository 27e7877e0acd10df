"""Results outlive outages, leases and the supervisor: they wait on disk and are delivered with their old fence."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from aiohttp import web

from supervisor.devserver.answers import error_answer
from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.call_log import Call, HangUp
from supervisor.exit_code import ExitCode
from supervisor.job import Failed, Fence, Succeeded
from supervisor.reporting.spool import Spool, SpoolFolder
from supervisor.reporting.spool_format import Destination
from supervisor.service import service
from tests.harness import (
    GENEROUS,
    PROJECT,
    Supervisor,
    calls,
    event,
    events,
    finished_job,
    program,
    reports,
    result_of,
    start_job,
    supervising,
)

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on


@pytest.fixture
async def server() -> AsyncIterator[DevServer]:
    """A server that gives no job away while a supervisor is started anew."""
    async with DevServer(DevServerSettings(heartbeat_interval=0.2, lease_ttl=60, journal=True)) as server:
        yield server


def answer(server: DevServer, status: int, *names: str) -> None:
    """Answer every call of these kinds by a status; 0 is no answer."""

    async def intercept(call: Call) -> web.StreamResponse | None:
        if call.name not in names:
            return None
        if not status:
            raise HangUp
        return web.Response(status=status)

    server.intercept = intercept


def spooled(state: Path, shelf: SpoolFolder = SpoolFolder.WAITING) -> list[str]:
    """The kinds of outcome that lie on a shelf of the spool."""
    notes = [found.record for found in Spool(state).find(shelf)]
    return ["damaged" if not note else note.failed.error_type if note.failed else "completed" for note in notes]


def leave(state: Path, url: str, *job_ids: str) -> None:
    """Put outcomes into the spool as an earlier process would have left them."""
    for job_id in job_ids:
        entry = Spool(state).write(Destination(url, PROJECT), Fence("earlier", job_id, 1), "a", Failed("E", "m"))
        assert entry is not None
        entry.close()


async def until(is_so: Callable[[], Any]) -> None:
    """Wait for what no server tells of: files."""
    async with asyncio.timeout(GENEROUS):
        while not is_so():
            await asyncio.sleep(0.01)


def claims_after_a_report(server: DevServer) -> list[Call]:
    """Of a supervisor with one slot: it has given up that report."""
    first = min((call.received_at for call in calls(server, "complete")), default=float("inf"))
    return [call for call in calls(server, "claim") if call.received_at > first]


def accepted(server: DevServer, job_id: str) -> list[Call]:
    return [call for call in reports(server, job_id) if call.status == 204]


async def killed(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.wait()


async def test_a_result_outlives_its_supervisor_and_is_delivered_once_with_the_old_fence(
    server: DevServer, state: Path
) -> None:
    answer(server, 503, "complete")
    async with program(server.url, state, worker_id="first") as process:
        run = await start_job(server, "echo", {"text": "hours of work"})
        await until(lambda: spooled(state))
        await killed(process)
    server.intercept = None
    async with program(server.url, state, worker_id="second"):
        job = await finished_job(server, run)
        await until(lambda: not spooled(state))

    assert (job.status, job.attempt) == ("completed", 1)
    (report,) = accepted(server, job.id)
    assert (report.body["worker_id"], result_of(report)) == ("first", {"text": "hours of work"})


async def test_a_result_outlives_a_gateway_that_answers_every_call_with_its_login(
    server: DevServer, state: Path
) -> None:
    async def show_login(call: Call) -> web.StreamResponse | None:
        return web.Response(text="<html>Log in</html>", content_type="text/html") if call.name == "complete" else None

    server.intercept = show_login
    async with supervising(server, state, workers="1"):
        run = await start_job(server, "echo", {"text": "hours of work"})
        await until(lambda: spooled(state))
        server.intercept = None
        job = await finished_job(server, run)
        await until(lambda: not spooled(state))

    (report,) = accepted(server, job.id)
    assert (job.status, result_of(report)) == ("completed", {"text": "hours of work"})


async def test_a_result_too_big_for_memory_outlives_its_supervisor(server: DevServer, state: Path) -> None:
    answer(server, 503, "complete")
    async with program(server.url, state) as process:
        run = await start_job(server, "big-result", {"size": 6 * 2**20})
        await until(lambda: spooled(state))
        await killed(process)
    server.intercept = None
    async with program(server.url, state):
        job = await finished_job(server, run)

    (report,) = accepted(server, job.id)
    assert (job.status, len(report.body["result_b64"])) == ("completed", 8 * 2**20)


async def test_the_outcome_of_a_long_job_is_on_disk_before_it_is_first_sent(server: DevServer, state: Path) -> None:
    on_disk: list[list[str]] = []

    async def look(call: Call) -> None:
        if call.name == "complete":
            on_disk.append(spooled(state))

    server.intercept = look
    async with supervising(server, state, spool_after="300ms", workers="1"):
        await finished_job(server, await start_job(server, "nothing"))
        await finished_job(server, await start_job(server, "sleeps", {"seconds": 0.4}))
        await until(lambda: not spooled(state))

    assert on_disk == [[], ["completed"]]


async def test_an_outcome_whose_first_send_hangs_is_on_disk_once_its_job_is_old_enough(
    server: DevServer, state: Path
) -> None:
    go_on = asyncio.Event()

    async def hang(call: Call) -> None:
        if call.name == "complete":
            await go_on.wait()

    server.intercept = hang
    async with supervising(server, state, spool_after="300ms"):
        run = await start_job(server, "nothing")
        await until(lambda: spooled(state))
        go_on.set()
        job = await finished_job(server, run)
        await until(lambda: not spooled(state))

    assert job.status == "completed"


async def test_a_short_job_that_is_accepted_at_once_never_touches_the_disk(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        await finished_job(server, await start_job(server, "nothing"))

    assert not (state / "spool").exists()


async def test_a_report_goes_on_after_its_lease_was_lost_by_silence(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1", lease_ttl="700ms"):
        answer(server, 0, "heartbeat", "complete")
        run = await start_job(server, "echo", {"text": "kept"})
        await server.until(lambda: claims_after_a_report(server) or None, timeout=GENEROUS)
        server.intercept = None
        job = await finished_job(server, run)
        await until(lambda: not spooled(state))

    assert (job.status, job.attempt) == ("completed", 1)
    assert len(accepted(server, job.id)) == 1


async def test_nothing_is_kept_of_a_job_whose_lease_was_refused(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1", spool_after="0s"):
        run = await start_job(server, "emits-then-sleeps", {"count": 1, "seconds": 0.0})

        async def intercept(call: Call) -> web.StreamResponse | None:
            # The events hold up the report, so that the refusal comes before it.
            answers = {"events": 503, "heartbeat": 409}
            return web.Response(status=answers[call.name]) if call.name in answers else None

        server.intercept = intercept
        await server.until(lambda: calls(server, "heartbeat") or None)
        await until(lambda: (state / "spool").exists() and not spooled(state))

    assert reports(server, server.jobs(run)[0].id) == []


async def test_a_cancel_takes_the_place_of_a_result_that_waits_for_its_events(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1", spool_after="0s"):
        answer(server, 503, "events")
        run = await start_job(server, "emits", {"count": 1})
        await until(lambda: spooled(state) == ["completed"])
        await server.cancel_run(run)
        await until(lambda: (state / "spool").exists() and not spooled(state))

    (report,) = reports(server, server.jobs(run)[0].id)
    assert (report.body["status"], report.body["error_type"]) == ("failed", "Cancelled")


async def test_a_drain_during_an_outage_leaves_the_outcome_soon_and_says_so(server: DevServer, state: Path) -> None:
    answer(server, 503, "complete")
    async with program(server.url, state, drain_timeout="5m", log_format="json") as process:
        run = await start_job(server, "echo", {"text": "kept"})
        await until(lambda: spooled(state))
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), GENEROUS)
    left = spooled(state)
    server.intercept = None
    async with program(server.url, state):
        job = await finished_job(server, run)

    log = (state / "log").read_text()
    assert (code, left, job.status) == (ExitCode.DRAINED, ["completed"], "completed")
    assert '"event":"undelivered outcomes remain in the spool"' in log
    assert '"count":1' in log
    assert "stopping the jobs" not in log


async def end_of_a_drain_that_waits(server: DevServer, supervisor: Supervisor) -> ExitCode:
    """The exit code of a supervisor that is told to drain a second before the server takes anything again."""
    supervisor.signal(signal.SIGTERM)
    await asyncio.sleep(1.0)  # several looks
    server.intercept = None
    return await supervisor.exit_code()


async def test_a_drain_does_not_leave_an_outcome_that_is_not_on_disk(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SPOOLED_OUTCOME_TIMEOUT", 0.0)
    state.mkdir()
    (state / "spool").write_text("where the folder should be")
    answer(server, 503, "complete")
    async with supervising(server, state, workers="1") as supervisor:
        run = await start_job(server, "nothing")
        await server.until(lambda: calls(server, "complete") or None)
        code = await end_of_a_drain_that_waits(server, supervisor)

    assert (code, server.jobs(run)[0].status) == (ExitCode.DRAINED, "completed")


async def test_a_drain_waits_for_events_whose_outcome_is_on_disk(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SPOOLED_OUTCOME_TIMEOUT", 0.0)
    answer(server, 503, "events")
    async with supervising(server, state, workers="1", spool_after="0s") as supervisor:
        run = await start_job(server, "emits", {"count": 1})
        await until(lambda: spooled(state) == ["completed"])
        code = await end_of_a_drain_that_waits(server, supervisor)

    assert (code, server.jobs(run)[0].status) == (ExitCode.DRAINED, "completed")
    assert len(events(server, run, "tick")) == 1


async def test_a_drain_keeps_the_outcome_and_drops_events_that_a_server_which_is_gone_never_takes(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SPOOLED_OUTCOME_TIMEOUT", 0.0)
    monkeypatch.setattr(service, "LAST_EVENTS", 0.3)
    with structlog.testing.capture_logs() as logged:
        # Neither the lease nor the time for the spool ends the wait.
        async with supervising(server, state, workers="1", lease_ttl="10m", spool_after="10m") as supervisor:
            answer(server, 0, "heartbeat", "events", "complete", "get_job")
            await start_job(server, "emits", {"count": 7})
            await server.until(lambda: calls(server, "events") or None)
            supervisor.signal(signal.SIGTERM)
            code = await supervisor.exit_code()

    assert (code, spooled(state)) == (ExitCode.DRAINED, ["completed"])
    (dropped,) = [line for line in logged if line["event"].startswith("events dropped")]
    assert (dropped["count"], dropped["reason"]) == (7, "the program ends")


async def test_a_job_whose_outcome_is_on_disk_was_not_cut_though_its_events_were_never_taken(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FINAL_REPORT_TIMEOUT", 0.1)
    answer(server, 503, "events")
    async with supervising(server, state, workers="1", spool_after="0s", drain_timeout="100ms") as supervisor:
        await start_job(server, "emits", {"count": 1})
        await until(lambda: spooled(state) == ["completed"])
        supervisor.signal(signal.SIGTERM)
        code = await supervisor.exit_code()

    assert code is ExitCode.DRAINED


async def test_a_job_that_is_cut_says_so_though_its_outcome_is_on_disk(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SPOOLED_OUTCOME_TIMEOUT", 0.0)
    answer(server, 503, "complete")
    async with supervising(server, state, workers="1", drain_timeout="100ms") as supervisor:
        run = await start_job(server, "python-loop")
        await event(server, run, "working")
        supervisor.signal(signal.SIGTERM)
        code = await supervisor.exit_code()

    assert (code, spooled(state)) == (ExitCode.JOBS_CUT, ["WorkerShutdown"])


@pytest.mark.parametrize("refused", ["complete", "claim"])
async def test_a_revoked_key_ends_the_program_and_loses_no_result(server: DevServer, state: Path, refused: str) -> None:
    answer(server, 503, "complete")
    async with supervising(server, state, wait_seconds="1", auth_timeout="300ms") as supervisor:
        run = await start_job(server, "echo", {"text": "kept"})
        await server.until(lambda: calls(server, "complete") or None)

        async def intercept(call: Call) -> web.StreamResponse | None:
            if call.name == "heartbeat":
                return None
            return error_answer(401, "unauthorized", "revoked") if call.name == refused else web.Response(status=503)

        server.intercept = intercept
        code = await supervisor.exit_code()
    left = spooled(state)
    server.intercept = None
    async with supervising(server, state):
        job = await finished_job(server, run)

    assert (code, left, job.status) == (ExitCode.CREDENTIAL_REFUSED, ["completed"], "completed")


async def test_a_damaged_file_is_set_aside_and_harms_nothing(server: DevServer, state: Path) -> None:
    (state / "spool").mkdir(parents=True)
    (state / "spool" / "job-1.outcome").write_bytes(os.urandom(200))

    async with program(server.url, state):
        job = await finished_job(server, await start_job(server, "nothing"))
        await until(lambda: spooled(state, SpoolFolder.DAMAGED))

    assert job.status == "completed"
    assert spooled(state) == []
    assert (state / "log").read_text().count("damaged spool file set aside") == 1


async def test_outcomes_for_other_servers_and_projects_are_never_sent(server: DevServer, state: Path) -> None:
    leave(state, "http://127.0.0.1:9", "foreign")
    leave(state, server.url, "ours")

    async with supervising(server, state):
        await server.until(lambda: calls(server, "complete") or None)
        await finished_job(server, await start_job(server, "nothing"))
        await until(lambda: len(spooled(state)) == 1)

    assert reports(server, "foreign") == []
    assert len(reports(server, "ours")) == 1


async def test_jobs_are_served_while_the_spool_cannot_be_emptied(server: DevServer, state: Path) -> None:
    leave(state, server.url, "a/b", "..", "x" * 300)
    hung: list[str | None] = []

    async def hang(call: Call) -> None:
        if call.name == "complete" and call.body["worker_id"] == "earlier":
            hung.append(call.job_id)
            await asyncio.Event().wait()

    server.intercept = hang
    async with supervising(server, state):
        job = await finished_job(server, await start_job(server, "nothing"))
        await server.until(lambda: hung or None)

    assert job.status == "completed"
    assert len(spooled(state)) == 3


async def test_two_supervisors_with_one_state_directory_send_nothing_twice(server: DevServer, state: Path) -> None:
    names = [f"job-{number}" for number in range(30)]
    leave(state, server.url, *names)

    async def take_time(call: Call) -> web.StreamResponse | None:
        if call.name != "complete":
            return None
        await asyncio.sleep(0.05)
        return web.Response(status=204)

    server.intercept = take_time
    async with (
        program(server.url, state, worker_id="one"),
        program(server.url, state, worker_id="two"),
    ):
        await until(lambda: not spooled(state))

    assert sorted(call.job_id or "" for call in calls(server, "complete")) == sorted(names)


async def test_a_spool_that_cannot_be_used_is_one_warning_and_reports_go_on(server: DevServer, state: Path) -> None:
    state.mkdir()
    (state / "spool").touch()  # a file where the folder should be: root may write everywhere else
    seen: list[Call] = []

    async def fail_twice(call: Call) -> web.StreamResponse | None:
        if call.name != "complete" or len(seen) == 2:
            return None
        seen.append(call)
        return web.Response(status=503)

    server.intercept = fail_twice
    async with program(server.url, state):
        job = await finished_job(server, await start_job(server, "nothing"))

    assert job.status == "completed"
    assert (state / "log").read_text().count("spool unavailable") == 1


def spool_command(state: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "supervisor", "spool", *arguments, "--state-dir", str(state)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=30
    )


async def test_the_spool_is_listed_and_sent_by_hand(server: DevServer, state: Path) -> None:
    leave(state, server.url, "job/1", "job/2")
    account = {"MOBIUS_BASE_URL": server.url, "PROJECT": PROJECT, "MOBIUS_API_KEY": "mbx_any"}

    listed = await asyncio.to_thread(spool_command, state, "ls")
    answer(server, 503, "complete")
    waiting = await asyncio.to_thread(spool_command, state, "replay", **account)
    server.intercept = None
    settled = await asyncio.to_thread(spool_command, state, "replay", **account)

    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [
        ["JOB", "ATTEMPT"],
        ["job/1", "1"],
        ["job/2", "1"],
    ]
    assert (waiting.returncode, waiting.stdout.count(": still waiting: 503")) == (1, 2)
    assert (settled.returncode, settled.stdout.count(": dropped, the server does not want it: ")) == (0, 2)
    assert spooled(state) == []


def held(path: Path, stack: ExitStack) -> None:
    entry = Spool(path.parents[1]).acquire(path)
    assert entry is not None
    stack.callback(entry.close)


def damaged(path: Path, _: ExitStack) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def linked(path: Path, _: ExitStack) -> None:
    path.rename(path.with_suffix(".other"))
    path.symlink_to(path.with_suffix(".other"))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (held, "another process has it in hands, such as the service, which sends it itself"),
        (damaged, "it is damaged, and was set aside in spool/damaged"),
        (linked, "it cannot be read: Too many levels of symbolic links"),
    ],
)
async def test_what_is_left_unsent_says_why_and_is_no_success(
    server: DevServer, state: Path, spoil: Callable[[Path, ExitStack], None], told: str
) -> None:
    leave(state, server.url, "job-1", "job-2")
    account = {"MOBIUS_BASE_URL": server.url, "PROJECT": PROJECT, "MOBIUS_API_KEY": "mbx_any"}
    (path,) = (state / "spool").glob("job-1-*")

    with ExitStack() as stack:
        spoil(path, stack)
        ended = await asyncio.to_thread(spool_command, state, "replay", **account)

    assert ended.returncode == 1
    assert f"{path.name}: not sent: {told}\n" in ended.stdout
    assert ended.stdout.count(": dropped, the server does not want it: ") == 1  # the other one is not kept back


@pytest.mark.parametrize("command", [["ls"], ["show", "j"], ["drop", "j", "--yes"], ["replay"]])
async def test_a_state_directory_that_is_not_there_is_told_and_is_no_empty_one(state: Path, command: list[str]) -> None:
    account = {"MOBIUS_BASE_URL": "http://127.0.0.1:9", "PROJECT": PROJECT, "MOBIUS_API_KEY": "mbx_any"}

    ended = spool_command(state / "typo", *command, **account)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"Error: there is no folder {state}/typo: check --state-dir, which must be that of the supervisor\n"
    )


async def test_a_state_directory_that_has_kept_nothing_yet_is_an_empty_one(state: Path) -> None:
    state.mkdir()

    ended = spool_command(state, "ls")

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", f"nothing in {state}/spool\n")


async def test_where_nothing_is_to_be_sent_that_is_said_and_what_waits_for_others(
    server: DevServer, state: Path
) -> None:
    account = {"MOBIUS_BASE_URL": server.url, "PROJECT": PROJECT, "MOBIUS_API_KEY": "mbx_any"}
    state.mkdir()

    empty = await asyncio.to_thread(spool_command, state, "replay", **account)
    leave(state, "http://127.0.0.1:9", "foreign", "other")
    foreign = await asyncio.to_thread(spool_command, state, "replay", **account)

    told = f"nothing waits for the project '{PROJECT}' of {server.url}"
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", f"{told}\n")
    assert (foreign.returncode, foreign.stdout) == (0, "")
    assert foreign.stderr == f"{told}; outcomes wait for '{PROJECT}' of http://127.0.0.1:9\n"


@pytest.mark.parametrize("result", [b"", b"1", b'{"a":1}', b'"done"', b"[\n1\n]"])
async def test_of_a_result_nothing_else_is_shown(state: Path, result: bytes) -> None:
    encoded = Succeeded(base64.b64encode(result))  # with and without padding at its end
    entry = Spool(state).write(Destination("https://x.example", "acme"), Fence("w", "j", 1), "render", encoded)
    assert entry is not None
    entry.close()

    assert spool_command(state, "show", "j").stdout.endswith(f"status   completed\n\n{result.decode()}\n")


@pytest.mark.parametrize("command", [["show", "job-1"], ["drop", "job-1", "--yes"]])
async def test_a_damaged_outcome_is_told_to_be_damaged(state: Path, command: list[str]) -> None:
    leave(state, "https://x.example", "job-1")
    (path,) = (state / "spool").glob("*.outcome")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])  # the checksum; its note can still be read

    ended = spool_command(state, *command)

    assert ended.returncode == 2
    assert f"Error: {path.name} is damaged: nothing in it can be trusted\n" in ended.stderr


async def test_an_outcome_is_shown_and_dropped_by_any_of_its_names(state: Path) -> None:
    spool = Spool(state)
    entry = spool.write(
        Destination("https://x.example", "acme"), Fence("w", "job/1", 2), "render", Succeeded(b"eyJhIjoxfQ==")
    )
    assert entry is not None
    held, seen = spool_command(state, "drop", "job/1", "--yes"), spool_command(state, "show", "job/1").stdout
    entry.close()

    shown = [spool_command(state, "show", name).stdout for name in ("job/1", "job/1#2", entry.path.name)]
    asked = spool_command(state, "drop", "job/1")
    dropped = spool_command(state, "drop", "job/1", "--yes")
    unknown = spool_command(state, "show", "job/1")

    assert (held.returncode, asked.returncode, dropped.returncode, unknown.returncode) == (2, 2, 0, 2)
    assert held.stderr == f"Error: {entry.path.name} is being sent at this moment: try again later\n"
    assert shown[0] == shown[1] == shown[2] == seen.replace("state    in hands\n", "state    waiting\n") != seen
    assert "worker   w\n" in shown[0]
    assert shown[0].endswith('\n{"a":1}\n')
    assert "add --yes" in asked.stderr
    assert unknown.stderr == f"Error: there is no outcome 'job/1' in {state}/spool\n"
    assert spooled(state) == []
