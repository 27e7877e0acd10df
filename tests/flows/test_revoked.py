"""The credential is refused, the project is unknown, nothing can be served: the program ends and says why."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from supervisor.devserver.answers import error_answer
from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.call_log import Call
from supervisor.exit_code import ExitCode
from tests.harness import GENEROUS, KEY, calls, event, finished_job, is_alive, logged, program, start_job, supervising


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
async def test_a_key_that_stays_revoked_kills_what_runs_and_is_exit_4(
    server: DevServer, state: Path, name: str, status: int
) -> None:
    async with supervising(server, state, wait_seconds="1", auth_timeout="300ms") as supervisor:
        run = await start_job(server, "with-daemon")
        working = await event(server, run, "working")
        if name == "events":
            await start_job(server, "emits", {"count": 10_000})

        async def refuse(call: Call) -> web.StreamResponse | None:
            return refusal(status) if call.name == name else None

        server.intercept = refuse
        code = await supervisor.exit_code()

    assert code is ExitCode.CREDENTIAL_REFUSED
    assert not any(map(is_alive, working["pids"]))


def refusal(status: int) -> web.Response:
    """As the server words it when it refuses the key."""
    return error_answer(status, "unauthorized", "the key was revoked")


def answers_once(server: DevServer, name: str, response: Callable[[], web.Response]) -> asyncio.Event:
    """Give the next call of this kind another answer; the event says that it was given."""
    given = asyncio.Event()

    async def intercept(call: Call) -> web.StreamResponse | None:
        if call.name != name or given.is_set():
            return None
        given.set()
        return response()

    server.intercept = intercept
    return given


@pytest.mark.parametrize("name", ["claim", "heartbeat", "events", "complete"])
@pytest.mark.parametrize("kind", ["own form", "page of a gateway"])
async def test_one_refusal_costs_no_job_and_claims_go_on(server: DevServer, state: Path, name: str, kind: str) -> None:
    def response() -> web.Response:
        return refusal(403) if kind == "own form" else web.Response(status=403, text="<html>Request blocked</html>")

    async with supervising(server, state, wait_seconds="1", workers="1"):
        await finished_job(server, await start_job(server, "nothing"))
        given = answers_once(server, name, response)
        run = await start_job(server, "emits-then-sleeps", {"count": 1, "seconds": 0.5})
        job = await finished_job(server, run)
        assert given.is_set()
        later = await finished_job(server, await start_job(server, "nothing"))

    assert [(each.status, each.attempt) for each in (job, later)] == [("completed", 1)] * 2


@pytest.mark.asyncio(loop_factories=["uvloop"])  # the program brings its own loop; ours does not matter
async def test_a_refused_key_is_shown_until_its_file_holds_another_one(state: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("mbx_old_key")
    settings = DevServerSettings(
        api_key="mbx_old_key", heartbeat_interval=0.2, lease_ttl=20, journal=True, database=tmp_path / "runs"
    )
    options = {"api_key_file": str(key_file), "listen": "127.0.0.1:0", "wait_seconds": "1", "worker_id": "w"}
    async with AsyncExitStack() as programs:
        async with DevServer(settings) as server:
            process = await programs.enter_async_context(program(server.url, state, **options))
            run = await start_job(server, "sleeps", {"seconds": 2.0})
            await server.until(lambda: calls(server, "heartbeat") or None, timeout=GENEROUS)
            port = int(server.url.rpartition(":")[2])
        async with DevServer(replace(settings, api_key="mbx_new_key", port=port)) as server:
            await logged(state, "key refused: claims are blocked")
            status, ready, metrics = [await shown(state, what) for what in ("status.json", "readyz", "metrics")]
            key_file.write_text("mbx_new_key")
            job = await finished_job(server, run)
            await logged(state, "key accepted again")
            process.send_signal(signal.SIGTERM)
            code = await asyncio.wait_for(process.wait(), GENEROUS)

    reason = json.loads(status)["claims"]["reason"]
    assert json.loads(status)["claims"]["blocked_by"] == ["credential"]
    assert reason.startswith("the server refuses the API key: 401 unauthorized: ")
    assert json.loads(ready) == {"ok": False, "reason": reason}
    assert 'mobius_supervisor_claims_blocked{reason="credential"} 1.0' in metrics
    assert (job.status, job.attempt, code) == ("completed", 1, ExitCode.DRAINED)


async def shown(state: Path, what: str) -> str:
    """What the program shows at its --listen address."""
    (page,) = re.findall(r'"page":"(.*?)"', (state / "log").read_text())
    async with ClientSession(page) as client, client.get(what) as answer:
        return await answer.text()


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
