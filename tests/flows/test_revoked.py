"""The credential is refused, the project is unknown, nothing can be served: the program ends and says why."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.journal import Call
from supervisor.exit_code import ExitCode
from tests.harness import KEY, event, is_alive, program, start_job, supervising


async def test_a_refused_key_at_the_start_is_exit_4(state: Path) -> None:
    async with (
        DevServer(DevServerSettings(api_key="mbx_another", journal=True)) as server,
        supervising(server, state) as supervisor,
    ):
        assert await supervisor.exit_code() is ExitCode.CREDENTIAL_REFUSED


async def test_the_right_key_is_sent_byte_for_byte(state: Path) -> None:
    async with (
        DevServer(DevServerSettings(api_key=KEY, journal=True)) as server,
        supervising(server, state),
    ):
        await server.until(lambda: server.calls and server.calls[0].status == 204)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("name", ["heartbeat", "claim", "events"])
async def test_a_key_that_is_revoked_later_kills_what_runs_and_is_exit_4(
    server: DevServer, state: Path, name: str, status: int
) -> None:
    async with supervising(server, state, wait_seconds="1") as supervisor:
        run = await start_job(server, "with-daemon")
        working = await event(server, run, "working")
        if name == "events":
            await start_job(server, "emits", {"count": 10_000})

        async def refuse(call: Call) -> web.StreamResponse | None:
            return web.Response(status=status) if call.name == name else None

        server.intercept = refuse
        code = await supervisor.exit_code()

    assert code is ExitCode.CREDENTIAL_REFUSED
    assert not any(map(is_alive, working["pids"]))


async def test_an_unknown_project_is_exit_2(state: Path) -> None:
    async with (
        DevServer(DevServerSettings(projects=frozenset({"other"}))) as server,
        supervising(server, state) as supervisor,
    ):
        assert await supervisor.exit_code() is ExitCode.USAGE


async def test_no_handler_at_all_is_exit_3(server: DevServer, state: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")

    async with supervising(server, state, handlers=str(tmp_path)) as supervisor:
        assert await supervisor.exit_code() is ExitCode.NO_HANDLER

    assert server.calls == []


async def test_a_broken_module_does_not_hurt_the_others(server: DevServer, state: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    (tmp_path / "fine.py").write_text("from supervisor import handler\n@handler('fine')\ndef fine(): return 1\n")

    async with supervising(server, state, handlers=str(tmp_path)):
        run = await start_job(server, "fine")
        await server.until(lambda: server.jobs(run)[0].status == "completed")


async def test_a_second_process_with_the_same_worker_id_is_refused(server: DevServer, state: Path) -> None:
    async with supervising(server, state, worker_id="render-07"):
        await server.until(lambda: server.calls or None)
        async with program(server.url, state, worker_id="render-07") as process:
            code = await asyncio.wait_for(process.wait(), 20)

    assert code == ExitCode.USAGE
    assert "the worker id 'render-07' is in use" in (state / "log").read_text()
