"""The unit under a real systemd: what `systemctl` says and does about a service is so for this one."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web

from supervisor.cli import systemd_unit as unit
from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.call_log import Call
from supervisor.exit_code import ExitCode
from supervisor.linux import landlock
from tests.box.installation import Installation
from tests.harness import GENEROUS, KEY, calls, event, finished_job, reports, result_of, start_job

pytestmark = [
    pytest.mark.root("only root can boot a box"),
    pytest.mark.xdist_group("box of the service"),  # a box for each worker takes longer than one for all tests
    pytest.mark.asyncio(loop_factories=["uvloop"]),  # what the program runs on, whatever the tests do
]

CREDENTIAL = "/run/credentials/mobius-supervisor.service/mobius-api-key"
ADMINISTRATORS = "/etc/mobius-supervisor/api-key"
needs_landlock = pytest.mark.skipif(landlock.version() < landlock.WITH_REFER, reason="this kernel's Landlock is old")
KEPT_SIGNALS = "PermissionError" if landlock.version() >= landlock.WITH_SIGNALS else "done"


@pytest.fixture
async def server() -> AsyncIterator[DevServer]:
    """A server that bears with the silence of a restart, which on a busy machine takes seconds."""
    async with DevServer(DevServerSettings(heartbeat_interval=0.2, lease_ttl=60, journal=True)) as server:
        yield server


@pytest.fixture
def service(box: Installation, server: DevServer) -> Iterator[Installation]:
    box.configure(server.url)
    yield box
    box.forget()


async def systemctl(service: Installation, *arguments: str) -> None:
    """As `Installation.systemctl`, while the server goes on answering."""
    await asyncio.to_thread(service.systemctl, *arguments)


async def until(service: Installation, name: str, *values: str) -> None:
    await asyncio.to_thread(service.until, name, *values)


async def test_a_start_returns_once_the_server_has_answered_however_long_that_takes(
    server: DevServer, service: Installation
) -> None:
    service.configure(server.url, "TimeoutStartSec=3s\n")  # systemd is asked for more
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def hold(_: Call) -> None:
        asked.set()
        await may_answer.wait()

    server.intercept = hold
    starting = asyncio.create_task(systemctl(service, "start"))
    await asyncio.wait_for(asked.wait(), GENEROUS)
    await asyncio.sleep(3.0)
    before = service.shows("ActiveState")
    may_answer.set()
    await starting

    assert (before, service.shows("NRestarts")) == ("activating", "0")
    assert service.shows("ActiveState") == "active"
    shown = (f"2 children: 0 busy 2 idle, 0 spooled, last claim {age} s ago" for age in range(30))
    await until(service, "StatusText", *shown)


async def test_a_reload_takes_new_code_over_in_the_same_process(server: DevServer, service: Installation) -> None:
    service.configure(server.url)
    await systemctl(service, "start")
    before = service.shows("MainPID")

    await systemctl(service, "reload")

    await until(service, "ActiveState", "active")
    assert (await finished_job(server, await start_job(server, "nothing"))).status == "completed"
    assert (service.shows("MainPID"), service.shows("NRestarts")) == (before, "0")
    assert "reloaded generation=2" in service.journal()


OWN = "from supervisor import handler\n\n\n@handler('own')\ndef own() -> None: ...\n"


async def test_a_reload_of_broken_code_fails_and_its_reason_is_in_the_journal(
    server: DevServer, service: Installation
) -> None:
    service.write("/opt/own/own.py", OWN)
    service.configure(server.url, MOBIUS_SUPERVISOR_HANDLERS="/opt/own")
    await systemctl(service, "start")
    before = service.shows("MainPID")
    service.write("/opt/own/own.py", "def (\n")

    with pytest.raises(AssertionError, match="systemctl"):  # its exit code is not 0
        await systemctl(service, "reload")

    await until(service, "ActiveState", "active")
    assert "Error: /opt/own/own.py:1: SyntaxError" in service.journal()
    service.write("/opt/own/own.py", OWN)
    await systemctl(service, "reload")
    assert (await finished_job(server, await start_job(server, "own"))).status == "completed"
    assert (service.shows("MainPID"), service.shows("NRestarts")) == (before, "0")


async def test_a_stop_waits_for_the_jobs_and_leaves_no_process(server: DevServer, service: Installation) -> None:
    service.configure(server.url, "TimeoutStopSec=1s\n")  # less than the drain may take: systemd is asked for more
    await systemctl(service, "start")
    run = await start_job(server, "sleeps", {"seconds": 2})
    await server.until(lambda: server.jobs(run)[-1].status == "claimed")

    await systemctl(service, "stop")

    assert server.run(run).status == "completed"
    assert (service.shows("ActiveState"), service.shows("Result")) == ("inactive", "success")
    assert service.processes() == []


async def test_jobs_that_ignore_everything_are_over_when_the_drain_is(server: DevServer, service: Installation) -> None:
    service.configure(server.url, MOBIUS_SUPERVISOR_DRAIN_TIMEOUT="100ms", MOBIUS_SUPERVISOR_CANCEL_GRACE="100ms")
    await systemctl(service, "start")
    runs = [await start_job(server, action) for action in ("ignores-sigterm", "with-daemon")]
    for run in runs:
        await event(server, run, "working")

    await systemctl(service, "stop")

    assert {reports(server, server.jobs(run)[0].id)[0].body["error_type"] for run in runs} == {"WorkerShutdown"}
    assert service.shows("ExecMainStatus") == str(int(ExitCode.JOBS_CUT))
    assert service.processes() == []


async def test_after_a_kill_it_is_restarted_and_reports_what_was_on_disk(
    server: DevServer, service: Installation
) -> None:
    async def refuse_reports(call: Call) -> web.Response | None:
        return web.Response(status=503) if call.name == "complete" else None

    await systemctl(service, "start")
    server.intercept = refuse_reports
    finished = await start_job(server, "echo", {"text": "kept"})
    endless = await start_job(server, "ignores-sigterm")
    await event(server, endless, "working")
    await server.until(lambda: calls(server, "complete") or None)
    children = set(service.processes())

    await systemctl(service, "kill", "--kill-who=main", "--signal=KILL")
    await until(service, "NRestarts", "1")
    server.intercept = None
    job = await finished_job(server, finished)

    assert job.status == "completed"
    assert not children & set(service.processes())


async def test_a_supervisor_that_stands_still_is_restarted(server: DevServer, service: Installation) -> None:
    await systemctl(service, "start")

    await systemctl(service, "kill", "--kill-who=main", "--signal=STOP")
    await until(service, "NRestarts", "1")
    await until(service, "ActiveState", "active")

    assert (await finished_job(server, await start_job(server, "nothing"))).status == "completed"


async def test_a_wrong_setting_is_no_reason_to_start_again(server: DevServer, service: Installation) -> None:
    service.configure(server.url, MOBIUS_SUPERVISOR_WORKERS="none")

    await systemctl(service, "start", "--no-block")
    await until(service, "ActiveState", "failed")

    assert service.shows("ExecMainStatus") == str(int(ExitCode.USAGE))
    assert service.shows("NRestarts") == "0"


@needs_landlock
@pytest.mark.parametrize("drop_in", ["", "ProtectProc=default\n"], ids=["as it is", "with all processes visible"])
async def test_a_handler_finds_the_key_nowhere(server: DevServer, service: Installation, drop_in: str) -> None:
    service.configure(server.url, drop_in)
    await systemctl(service, "start")
    digest = hashlib.sha256(KEY.encode()).hexdigest()

    job = await finished_job(server, await start_job(server, "spy", {"digest": digest, "key_file": CREDENTIAL}))

    came = result_of(reports(server, job.id)[0])
    assert [way for way, told in came.items() if told == "found"] == []
    assert [way for way, told in came.items() if told == "not there" and not way.startswith(("own", "command"))] == []
    assert came["the credential"] == "PermissionError"
    assert "own memory" in came


async def test_a_key_given_by_standard_input_is_found_nowhere(server: DevServer, service: Installation) -> None:
    service.configure(
        server.url,
        f"StandardInput=file:{ADMINISTRATORS}\nLoadCredential=\nProtectProc=default\n",
        MOBIUS_SUPERVISOR_API_KEY_FILE="-",
    )
    await systemctl(service, "start")
    digest = hashlib.sha256(KEY.encode()).hexdigest()

    job = await finished_job(server, await start_job(server, "spy", {"digest": digest, "key_file": ADMINISTRATORS}))

    came = result_of(reports(server, job.id)[0])
    assert [way for way, told in came.items() if told == "found"] == []
    assert came["the credential"] == "PermissionError"
    assert came["descriptors of the parent"] == "PermissionError"


@needs_landlock
async def test_a_handler_cannot_leave_its_group_nor_harm_others(server: DevServer, service: Installation) -> None:
    service.configure(server.url, unit.delegation().partition("[Service]\n")[2])
    await systemctl(service, "start")

    job = await finished_job(server, await start_job(server, "get-out-of-hand"))

    assert result_of(reports(server, job.id)[0]) == {
        "leave the control group": "PermissionError",
        "make a control group": "PermissionError",
        "signal the supervisor": KEPT_SIGNALS,
        "signal others": KEPT_SIGNALS,
    }


async def test_root_finds_the_service_its_instances_and_their_outcomes(
    server: DevServer, service: Installation
) -> None:
    async def refuse_reports(call: Call) -> web.Response | None:
        return web.Response(status=503) if call.name == "complete" else None

    instance = service.instance("render")
    instance.configure(server.url, WORKER_ID="instance")
    try:
        server.intercept = refuse_reports
        await systemctl(instance, "start")
        run = await start_job(server, "echo")
        await server.until(lambda: calls(server, "complete") or None)
        alone = json.loads(await asyncio.to_thread(service.command, "status", "--json"))
        await systemctl(instance, "kill", "--kill-who=main", "--signal=KILL")  # what is not accepted is on disk
        await systemctl(instance, "stop")
        kept = await asyncio.to_thread(service.command, "spool", "ls")
        await systemctl(instance, "start")
        service.configure(server.url, WORKER_ID="service")
        await systemctl(service, "start")
        beside = json.loads(await asyncio.to_thread(service.command, "status", "--json", "--worker-id=service"))
    finally:
        await asyncio.to_thread(instance.forget)

    assert (alone["worker_id"], alone["state"]) == ("instance", "serving")
    assert server.jobs(run)[0].id in kept
    assert beside["worker_id"] == "service"
