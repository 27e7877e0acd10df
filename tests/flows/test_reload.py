"""SIGHUP: new code and settings while jobs run, and none of them notices."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from aiohttp import ClientSession

from supervisor.devserver.app import DevServer
from supervisor.exit_code import ExitCode
from supervisor.linux.syscalls import children_of
from supervisor.pool.pool import Pool
from supervisor.process.zygote import Zygote
from supervisor.service import reload as reload_module
from tests.harness import (
    GENEROUS,
    calls,
    event,
    field_of,
    finished_job,
    logged,
    program,
    reports,
    result_of,
    start_job,
    supervising,
    zygote_of,
)
from tests.lease import leased

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on

TELLS = """
import time
from pathlib import Path
from supervisor import Context, handler

@handler("tells")
def tells(context: Context, until: str = "") -> str:
    context.emit("working", {})
    while until and not Path(until).exists():
        time.sleep(0.02)
    return "VERSION"
"""
OTHER = """
from supervisor import handler

@handler("other")
def other() -> str:
    return "other"
"""


@pytest.fixture
def handlers(tmp_path: Path) -> Path:
    """A folder with the first version of the handler `tells`."""
    folder = tmp_path / "handlers"
    folder.mkdir()
    write(folder, "old")
    return folder


def write(folder: Path, version: str) -> None:
    (folder / "tells.py").write_text(TELLS.replace("VERSION", version))


@asynccontextmanager
async def serving(
    server: DevServer, state: Path, handlers: Path, **changes: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The program, once it serves."""
    async with program(server.url, state, handlers=str(handlers), **changes) as process:
        await logged(state, "serving")
        yield process


async def told(server: DevServer, run_id: str) -> Any:
    job = await finished_job(server, run_id)
    (report,) = reports(server, job.id)
    assert report.body["status"] == "completed", report.body
    return result_of(report)


async def test_a_job_that_runs_ends_on_the_old_code_and_the_next_one_has_the_new(
    server: DevServer, state: Path, handlers: Path, tmp_path: Path
) -> None:
    async with serving(server, state, handlers) as process:
        before = zygote_of(process.pid)
        long = await start_job(server, "tells", {"until": str(tmp_path / "go")})
        await event(server, long, "working")
        write(handlers, "new")
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')

        short = await start_job(server, "tells")

        assert await told(server, short) == "new"
        assert server.jobs(long)[0].status == "claimed"
        assert zygote_of(process.pid) != before
        (tmp_path / "go").touch()
        assert await told(server, long) == "old"
        assert await told(server, await start_job(server, "tells")) == "new"
        assert before not in children_of(process.pid)
    assert [server.jobs(run)[0].attempt for run in (long, short)] == [1, 1]


CRASHES = """
import os
from supervisor import handler

@handler("crashes")
def crashes() -> None:
    os.abort()
"""


async def test_a_handler_that_is_refused_is_shown_and_new_code_gets_a_new_trial(
    server: DevServer, state: Path, handlers: Path
) -> None:
    (handlers / "crashes.py").write_text(CRASHES)
    async with serving(server, state, handlers, listen="127.0.0.1:0") as process:
        for _ in range(3):
            job = await finished_job(server, await start_job(server, "crashes"))
            assert job.error_type == "ChildDied"
        assert await refused(state) == ["handler crashes"]

        (handlers / "crashes.py").write_text(CRASHES.replace("os.abort()", "pass"))
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')

        assert await refused(state) == []
        assert (await finished_job(server, await start_job(server, "crashes"))).status == "completed"


async def refused(state: Path) -> list[str]:
    """What the program says that it refuses to run."""
    lines = map(json.loads, (state / "log").read_text().splitlines())
    (page,) = [line["page"] for line in lines if line["event"] == "listening"]
    async with ClientSession() as client, client.get(f"{page}status.json") as answer:
        return list((await answer.json())["quarantined"])


async def test_code_that_cannot_be_imported_is_not_taken_over(server: DevServer, state: Path, handlers: Path) -> None:
    async with serving(server, state, handlers) as process:
        before = zygote_of(process.pid)
        (handlers / "tells.py").write_text("def broken(:\n")
        process.send_signal(signal.SIGHUP)
        await logged(state, "not reloaded")

        assert await told(server, await start_job(server, "tells")) == "old"
        assert zygote_of(process.pid) == before
        assert f"{handlers}/tells.py:1: SyntaxError" in (state / "log").read_text()
        write(handlers, "new")
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')
        assert await told(server, await start_job(server, "tells")) == "new"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def broken(:\n", "tells.py:1: SyntaxError"),
        ("raise ValueError('not today')\n", "tells.py:1: ValueError: not today"),
        ("import os; os._exit(3)\n", "tells.py:1: its import exited with code 3: no output"),
    ],
)
async def test_a_refused_reload_is_one_line(
    server: DevServer, state: Path, handlers: Path, source: str, reason: str
) -> None:
    async with serving(server, state, handlers) as process:
        await logged(state, '"event":"serving"')
        before = (state / "log").read_text()
        (handlers / "tells.py").write_text(source)
        process.send_signal(signal.SIGHUP)
        await logged(state, "not reloaded")

        said = [json.loads(line) for line in (state / "log").read_text().removeprefix(before).splitlines()]

    begun, refused = said
    assert (begun["event"], begun["by"]) == ("reloading", "SIGHUP")
    assert (refused["event"], refused["level"]) == ("not reloaded: the old handlers and settings stay", "error")
    assert reason in refused["error"]


async def test_a_settings_file_that_has_become_a_pipe_is_refused_and_jobs_go_on(
    server: DevServer, state: Path, handlers: Path, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.touch()
    async with serving(server, state, handlers, config=str(file)) as process:
        file.unlink()
        os.mkfifo(file)
        process.send_signal(signal.SIGHUP)
        await logged(state, "not reloaded")

        assert await told(server, await start_job(server, "tells")) == "old"
    assert f"the settings file {file} must be a regular file" in (state / "log").read_text()


async def test_a_misspelt_variable_is_one_warning_at_the_start_and_at_a_reload(
    server: DevServer, state: Path, handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBIUS_SUPERVISOR_JOB_TIMOUT", "5s")
    async with serving(server, state, handlers) as process:
        at_the_start = warnings(state)
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')

    told = "ignored: there is no setting 'MOBIUS_SUPERVISOR_JOB_TIMOUT'; is it 'MOBIUS_SUPERVISOR_JOB_TIMEOUT'?"
    assert at_the_start == [told]
    assert warnings(state) == [told, told]


def warnings(state: Path) -> list[str]:
    """What of settings the program has warned of."""
    lines = map(json.loads, (state / "log").read_text().splitlines())
    return [line["event"] for line in lines if line["level"] == "warning" and "setting" in line["event"]]


async def test_a_module_that_was_broken_before_does_not_stand_in_the_way(
    server: DevServer, state: Path, handlers: Path
) -> None:
    (handlers / "broken.py").write_text("def broken(:\n")
    async with serving(server, state, handlers) as process:
        write(handlers, "new")
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')

        assert await told(server, await start_job(server, "tells")) == "new"


async def test_of_many_reloads_at_once_the_last_version_serves(server: DevServer, state: Path, handlers: Path) -> None:
    async with serving(server, state, handlers) as process:
        for number in range(5):
            write(handlers, f"version {number}")
            process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.05)  # signals of one kind that are pending at once are one signal
        await logged(state, '"reloaded"')
        run = await start_job(server, "tells")

        while (version := await told(server, run)) != "version 4":
            assert version.startswith("version")
            run = await start_job(server, "tells")


async def test_a_handler_that_is_taken_away_is_not_claimed_any_more(
    server: DevServer, state: Path, handlers: Path
) -> None:
    (handlers / "other.py").write_text(OTHER)
    async with serving(server, state, handlers) as process:
        assert await told(server, await start_job(server, "other")) == "other"
        (handlers / "other.py").unlink()
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')
        await server.until(lambda: field_of(calls(server, "claim")[-1], "actions") == ["tells"] or None)
        run = await start_job(server, "other")

        assert await told(server, await start_job(server, "tells")) == "old"
        assert server.jobs(run)[0].status != "claimed"
    assert not calls(server, "complete", server.jobs(run)[0].id)


async def test_a_job_that_the_last_claim_brings_for_a_handler_that_is_gone_is_run_by_the_old_code(
    server: DevServer, state: Path, handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (handlers / "other.py").write_text(OTHER)
    runs: list[asyncio.Task[str]] = []
    use = Pool.use

    def use_and_start(pool: Pool, zygote: Zygote, *rest: Any) -> None:
        use(pool, zygote, *rest)
        runs.append(asyncio.create_task(start_job(server, "other")))

    async with supervising(server, state, handlers=str(handlers), workers="1") as supervisor:
        await finished_job(server, await start_job(server, "other"))
        await server.until(lambda: any(call.status is None for call in calls(server, "claim")) or None)
        monkeypatch.setattr(Pool, "use", use_and_start)
        (handlers / "other.py").unlink()
        supervisor.signal(signal.SIGHUP)
        async with asyncio.timeout(20):
            while not runs:
                await asyncio.sleep(0.01)

        assert await told(server, await runs[0]) == "other"


async def test_a_reload_brings_handlers_back_while_the_zygote_is_dead(
    server: DevServer, state: Path, handlers: Path
) -> None:
    async with serving(server, state, handlers) as process:
        text = (handlers / "tells.py").read_text()
        (handlers / "tells.py").write_text("import os; os._exit(3)")
        os.kill(zygote_of(process.pid), signal.SIGKILL)
        await logged(state, "no new zygote")
        process.send_signal(signal.SIGHUP)
        await logged(state, "not reloaded")
        (handlers / "tells.py").write_text(text)
        process.send_signal(signal.SIGHUP)

        assert await told(server, await start_job(server, "tells")) == "old"


async def test_a_reload_while_draining_is_ignored_and_the_job_ends(
    server: DevServer, state: Path, handlers: Path, tmp_path: Path
) -> None:
    async with serving(server, state, handlers) as process:
        run = await start_job(server, "tells", {"until": str(tmp_path / "go")})
        await event(server, run, "working")
        process.send_signal(signal.SIGTERM)
        await logged(state, "draining")
        process.send_signal(signal.SIGHUP)
        await logged(state, "request ignored: the program is ending")
        (tmp_path / "go").touch()

        assert await process.wait() == ExitCode.DRAINED
    assert await told(server, run) == "old"


async def test_a_drain_during_a_reload_ends_in_order(server: DevServer, state: Path, handlers: Path) -> None:
    async with serving(server, state, handlers) as process:
        (handlers / "slow.py").write_text("import time; time.sleep(60)")
        process.send_signal(signal.SIGHUP)
        await logged(state, "reloading")
        process.send_signal(signal.SIGTERM)

        assert await process.wait() == ExitCode.DRAINED


async def test_settings_are_read_again_and_what_cannot_change_is_named(
    server: DevServer, state: Path, handlers: Path, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("queue = 'default'\ndrain-timeout = '5m'\n")
    async with serving(server, state, handlers, config=str(file)) as process:
        file.write_text("queue = ['first', 'second']\nlog-level = 'debug'\nworker-id = 'another'\n")
        process.send_signal(signal.SIGHUP)
        await logged(state, '"reloaded"')

        await server.until(lambda: field_of(calls(server, "claim")[-1], "queues") == ["first", "second"] or None)
        assert "--worker-id cannot change while the program runs: it needs a restart" in (state / "log").read_text()
        assert calls(server, "claim")[-1].body["worker_id"] != "another"


async def test_settings_that_are_wrong_leave_everything_as_it_is(
    server: DevServer, state: Path, handlers: Path, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("nice = 5\n")
    async with serving(server, state, handlers, config=str(file)) as process:
        write(handlers, "new")
        file.write_text("nice = 99\n")
        process.send_signal(signal.SIGHUP)
        await logged(state, "nice: must be a whole number from 0 to 19, not '99'")

        assert await told(server, await start_job(server, "tells")) == "old"


async def test_systemd_is_told_when_a_reload_begins_and_ends_and_why_it_failed(
    server: DevServer, state: Path, handlers: Path, tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet:
        outlet.bind(address)
        outlet.setblocking(False)

        async def until(start: str) -> str:
            async with asyncio.timeout(20):
                while not (text := (await loop.sock_recv(outlet, 4096)).decode()).startswith(start):
                    pass
            return text

        loop = asyncio.get_running_loop()
        async with supervising(
            server, state, {"NOTIFY_SOCKET": address}, handlers=str(handlers), drain_timeout="1s"
        ) as supervisor:
            await until("READY=1")
            supervisor.signal(signal.SIGHUP)
            assert "\nMONOTONIC_USEC=" in await until("RELOADING=1")
            await until("READY=1")
            (handlers / "tells.py").write_text("raise ValueError('not today')")
            supervisor.signal(signal.SIGHUP)
            await until("RELOADING=1")
            await until("READY=1")
            status = await until("STATUS=")

    assert status.startswith("STATUS=2 children: 0 busy 2 idle, 0 spooled, last claim ")
    assert "reload refused: " in status
    assert "not today" in status


async def test_no_job_is_dropped_by_reloads_under_load(server: DevServer, state: Path, handlers: Path) -> None:
    async with serving(server, state, handlers, workers="4") as process:
        runs = []
        for number in range(120):
            if number % 20 == 0:
                write(handlers, f"version {number}")
                process.send_signal(signal.SIGHUP)
            runs.append(await start_job(server, "tells"))
            await asyncio.sleep(0.01)

        for run in runs:
            await told(server, run)
    assert {server.jobs(run)[0].attempt for run in runs} == {1}


async def test_settings_that_cannot_even_be_looked_at_end_no_job(
    server: DevServer, state: Path, handlers: Path, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"handlers = '{handlers}'\n")
    out_of_reach = tmp_path / ("x" * 300)  # for root, too, to whom a mode says nothing
    async with program(server.url, state, handlers=None, config=str(file)) as process:
        await logged(state, '"serving"')
        run = await start_job(server, "tells", {"until": str(tmp_path / "go")})
        await event(server, run, "working")
        file.write_text(f"handlers = '{out_of_reach}'\n")
        process.send_signal(signal.SIGHUP)
        await logged(state, f"--handlers: the folder '{out_of_reach}' cannot be read: File name too long")
        (tmp_path / "go").touch()

        assert await told(server, run) == "old"
    assert server.jobs(run)[0].attempt == 1


async def test_no_bug_in_a_reload_ends_the_program(
    server: DevServer, state: Path, handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("nobody has thought of this")

    with structlog.testing.capture_logs() as said:
        async with supervising(server, state, handlers=str(handlers)) as supervisor:
            assert await told(server, await start_job(server, "tells")) == "old"
            monkeypatch.setattr(reload_module, "job_config", fail)
            supervisor.signal(signal.SIGHUP)
            async with asyncio.timeout(GENEROUS):
                while not [line for line in said if line["event"] == reload_module.NOT_RELOADED]:
                    await asyncio.sleep(0.01)

            assert await told(server, await start_job(server, "tells")) == "old"
    (refusal,) = [line for line in said if line["event"] == reload_module.NOT_RELOADED]
    assert refusal["error"] == "RuntimeError: nobody has thought of this"


@pytest.mark.parametrize("hangs", ["config", "api_key_file"])
async def test_a_file_that_hangs_holds_up_its_reload_and_neither_jobs_nor_the_end(
    server: DevServer, state: Path, handlers: Path, tmp_path: Path, hangs: str
) -> None:
    given = {"config": tmp_path / "settings.toml", "api_key_file": tmp_path / "key"}
    given["config"].write_text("workers = 1")
    given["api_key_file"].write_text("mbx_any")
    texts = {name: str(path) for name, path in given.items()}

    async with serving(server, state, handlers, **texts) as process:
        with leased(given[hangs]):
            process.send_signal(signal.SIGHUP)
            await logged(state, '"reloading"')
            assert await told(server, await start_job(server, "tells")) == "old"
            assert '"reloaded"' not in (state / "log").read_text()
        await logged(state, '"reloaded"')
        with leased(given[hangs]):
            process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(GENEROUS):
                while (state / "log").read_text().count('"reloading"') < 2:
                    await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            code = await asyncio.wait_for(process.wait(), GENEROUS)

    assert code == ExitCode.DRAINED
    assert "not reloaded" not in (state / "log").read_text()
