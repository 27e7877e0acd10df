from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from supervisor.cli.submit import RunEvent, SubmitError, Target, describe, read_parameters, show_result, submit
from supervisor.devserver.app import Call, DevServer, DevServerSettings
from supervisor.exit_code import ExitCode
from supervisor.settings.resolution import ConfigError


@pytest.fixture
async def server() -> AsyncIterator[DevServer]:
    settings = DevServerSettings(projects=frozenset({"acme"}), api_key="mbx_right")
    async with DevServer(settings) as opened:
        yield opened


def target(server: DevServer, *, project: str = "acme", token: str = "mbx_right") -> Target:
    return Target(server.url, project, token)


async def work(server: DevServer, outcome: dict[str, Any], events: list[dict[str, Any]]) -> None:
    """Be the worker of one job."""
    jobs = f"{server.url}/v1/projects/acme/jobs"
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer mbx_right"}, raise_for_status=True) as session:
        claimed = await session.post(f"{jobs}/claim", json={"worker_id": "w", "wait_seconds": 10})
        job = await claimed.json()
        fence = {"worker_id": "w", "attempt": job["attempt"]}
        if events:
            await session.post(f"{jobs}/{job['job_id']}/events", json={**fence, "events": events})
        await session.post(f"{jobs}/{job['job_id']}/complete", json={**fence, **outcome})


def completed(result: bytes) -> dict[str, Any]:
    return {"status": "completed", "result_b64": base64.b64encode(result).decode()}


async def test_a_run_of_one_step_is_started_and_its_id_printed(
    server: DevServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code = await submit(target(server), "resize-image", {"width": 8}, queue="gpu", follow=False)

    run_id = capsys.readouterr().out.strip()
    [job] = server.jobs(run_id)
    assert code == 0
    assert (job.action, job.queue, job.parameters) == ("resize-image", "gpu", b'{"width":8}')


async def test_a_followed_run_shows_its_events_and_ends_with_its_result(
    server: DevServer, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [{"type": "progress", "payload": {"done": 1, "note": "\x1b[2J"}}]

    async with asyncio.TaskGroup() as group:
        group.create_task(work(server, completed(b'{"width": 8}'), events))
        code = await submit(target(server), "resize-image", {}, queue=None, follow=True)

    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert code == 0
    assert printed.out == '{"width": 8}'
    assert [line.split(" ")[2].rstrip(",") for line in lines if line.startswith("job")] == [
        "pending",
        "claimed",
        "completed",
    ]
    assert '  progress {"done": 1, "note": "\\u001b[2J"}' in lines
    assert lines[-1].endswith("completed")


async def test_ctrl_c_while_a_run_is_followed_names_the_run_that_goes_on(server: DevServer) -> None:
    account = {"MOBIUS_BASE_URL": server.url, "PROJECT": "acme", "MOBIUS_API_KEY": "mbx_right"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "supervisor", "submit", "resize-image", "--follow"),
        env={**os.environ, **account},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    run_id = (await process.stderr.readline()).decode().split()[1]
    await process.stderr.readline()  # of its job: it is followed
    process.send_signal(signal.SIGINT)
    rest = (await process.stderr.read()).decode()

    assert await process.wait() == 1
    assert f"run {run_id} goes on: only this command ends\n" in rest
    assert "Traceback" not in rest
    assert server.jobs(run_id)[0].status == "pending"


async def test_a_run_that_failed_is_exit_code_1_and_says_why(
    server: DevServer, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = {"status": "failed", "error_type": "ValueError", "error_message": "no such image"}

    async with asyncio.TaskGroup() as group:
        group.create_task(work(server, outcome, []))
        code = await submit(target(server), "resize-image", {}, queue=None, follow=True)

    printed = capsys.readouterr()
    assert (code, printed.out) == (1, "")
    assert "ValueError: no such image" in printed.err.splitlines()[-1]


async def test_a_traceback_stands_below_its_job_and_is_told_once(
    server: DevServer, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "no such image\n\nTraceback:\n  line 3\x1b[2J"
    outcome = {"status": "failed", "error_type": "ValueError", "error_message": message}

    async with asyncio.TaskGroup() as group:
        group.create_task(work(server, outcome, []))
        await submit(target(server), "resize-image", {}, queue=None, follow=True)

    failed, *traceback, run = capsys.readouterr().err.splitlines()[3:]
    assert failed.endswith(" failed, attempt 1: ValueError: no such image")
    assert traceback == ["    Traceback:", "      line 3\\u001b[2J"]
    assert run.endswith("ValueError: no such image")


class CuttingServer:
    """Serves one run whose stream is cut, then refused, then replayed to its end."""

    def __init__(self) -> None:
        self.since: list[str | None] = []
        self.result = "AAE="
        self._runner = web.AppRunner(self._application())

    async def __aenter__(self) -> Target:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return Target(f"http://127.0.0.1:{self._runner.addresses[0][1]}", "acme", "mbx_right")

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/v1/projects/acme/runs", self._run)
        application.router.add_get("/v1/projects/acme/runs/run_1", self._run)
        application.router.add_get("/v1/projects/acme/runs/run_1/events", self._events)
        return application

    async def _run(self, _request: web.Request) -> web.Response:
        return web.json_response({"id": "run_1", "status": "completed", "result_b64": self.result})

    async def _events(self, request: web.Request) -> web.Response:
        self.since.append(request.query.get("since"))
        first = b'data: {"type":"custom","seq":1,"data":{"type":"first"}}\n\n'
        snapshot = b'data: {"type":"run_updated","seq":9,"data":{"status":"completed"}}\n\n'
        second = b'data: {"type":"custom","seq":2,"data":{"type":"second"}}\n\n'
        answers = {1: web.Response(body=first + b'data: {"type'), 2: web.Response(status=503)}
        return answers.get(len(self.since), web.Response(body=snapshot + second))


async def test_a_stream_that_is_cut_is_taken_up_where_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    server = CuttingServer()

    async with server as cutting:
        code = await submit(cutting, "resize-image", {}, queue=None, follow=True)

    printed = capsys.readouterr()
    assert (code, printed.out) == (0, "\0\1")
    assert server.since == ["0", "1", "1"]
    assert printed.err.splitlines() == [
        "run run_1",
        "  first null",
        "connection lost, trying again: it answered 503",
        "  second null",
        "run run_1 completed",
    ]


async def test_a_terminal_is_shown_what_the_bytes_of_a_result_are(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb") as screen:
        monkeypatch.setattr(sys, "stdout", terminal)
        async with CuttingServer() as cutting:
            await submit(cutting, "resize-image", {}, queue=None, follow=True)

        assert screen.readline() == b"2 B of binary data: add > FILE to the command to save it\r\n"


async def test_a_result_that_is_no_base64_is_one_sentence() -> None:
    server = CuttingServer()
    server.result = "AAE"

    async with server as cutting:
        with pytest.raises(SubmitError, match="the result in the server's answer is no base64") as caught:
            await submit(cutting, "resize-image", {}, queue=None, follow=True)

    assert caught.value.code == ExitCode.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("who", "code", "part"),
    [
        ({"token": "mbx_wrong"}, ExitCode.CREDENTIAL_REFUSED, r"refuses the API key \(401\)"),
        ({"project": "other"}, ExitCode.USAGE, r"knows no project 'other' \(404\)"),
    ],
)
async def test_a_refusal_is_one_sentence(server: DevServer, who: dict[str, str], code: ExitCode, part: str) -> None:
    with pytest.raises(SubmitError, match=part) as caught:
        await submit(target(server, **who), "resize-image", {}, queue=None, follow=False)

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (lambda: web.Response(status=503), "gives no answer of use: it answered 503"),
        (
            lambda: web.Response(status=302, headers={"Location": "http://elsewhere"}),
            "^302: redirects to http://elsewhere, which is not",
        ),
        (lambda: web.Response(status=400, text="bad\x1b[2J"), r"refuses the run \(400\): bad\\u001b\[2J"),
        (
            lambda: web.Response(status=403, text="<html>blocked", content_type="text/html"),
            "answered 403: not in the format of the job server",
        ),
        (lambda: web.Response(text="<html>"), "gives no answer of use: JSON is malformed"),
    ],
)
async def test_an_answer_that_is_of_no_use_is_one_sentence(
    server: DevServer, answer: Callable[[], web.Response], part: str
) -> None:
    async def intercept(_call: Call) -> web.Response:
        return answer()

    server.intercept = intercept

    with pytest.raises(SubmitError, match=part) as caught:
        await submit(target(server), "resize-image", {}, queue=None, follow=False)

    assert caught.value.code == ExitCode.INTERNAL_ERROR


async def test_a_server_that_is_not_there_is_one_sentence(unused_tcp_port: int) -> None:
    nowhere = Target(f"http://127.0.0.1:{unused_tcp_port}", "acme", "mbx_right")

    with pytest.raises(SubmitError, match=f"^no connection to 127.0.0.1:{unused_tcp_port}: Connection refused$"):
        await submit(nowhere, "resize-image", {}, queue=None, follow=False)


@pytest.mark.parametrize("text", ["", "{", "[1]", "NaN", '{"a": NaN}', "1"])
def test_parameters_are_a_json_object(text: str) -> None:
    with pytest.raises(ConfigError, match="--params: must be a JSON object"):
        read_parameters(text)


def test_a_job_that_failed_is_described_with_its_error() -> None:
    data = {"id": "job_1", "status": "pending", "attempt": 2, "error_type": "Timeout", "last_error": "too slow"}

    assert describe(RunEvent("job_updated", 4, data)) == "job job_1 pending, attempt 2: Timeout: too slow"


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (b'{"a":1}', '{\n  "a": 1\n}'),
        ('"ü\x9b"'.encode(), '"ü\\u009b"'),
        (b"\xff\x00\x01", "3 B of binary data: add > FILE to the command to save it"),
        (b"\x00\x01", "2 B of binary data: add > FILE to the command to save it"),
        (b"{", "1 B of text that is not JSON: add > FILE to the command to save it"),
        (b"[" * 100_000, "97.7 KiB of text that is not JSON: add > FILE to the command to save it"),
    ],
)
def test_a_terminal_shows_a_result_as_json_or_by_its_size_and_kind(result: bytes, shown: str) -> None:
    assert show_result(result) == shown
