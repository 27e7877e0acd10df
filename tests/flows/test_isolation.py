"""What a handler sees of the supervisor, and what the supervisor sees of what a handler prints."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.devserver.app import DevServer
from supervisor.logs import log
from supervisor.logs.redaction import Mask
from tests.harness import KEY, finished_job, reports, result_of, start_job, supervising

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on


async def result(server: DevServer, state: Path, action: str, parameters: dict[str, Any] | None = None) -> Any:
    async with supervising(server, state, pass_env="WANTED"):
        job = await finished_job(server, await start_job(server, action, parameters))
    return result_of(reports(server, job.id)[0])


async def test_a_child_sees_an_allow_list_of_the_environment_and_its_job(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MOBIUS_API_KEY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "AWS_SECRET", "WANTED", "LC_ALL"):
        monkeypatch.setenv(name, KEY if name == "MOBIUS_API_KEY" else "C")

    seen = await result(server, state, "environment")

    assert {"PATH", "WANTED", "LC_ALL", "MOBIUS_JOB_ID", "MOBIUS_RUN_ID", "MOBIUS_ATTEMPT"} <= seen.keys()
    assert seen.keys().isdisjoint({"MOBIUS_API_KEY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "AWS_SECRET"})
    assert KEY not in seen.values()


async def test_a_child_holds_its_outlets_its_stack_file_its_reserve_and_its_pipe_only(
    server: DevServer, state: Path
) -> None:
    seen = await result(server, state, "descriptors")

    assert seen.pop("0") == "/dev/null"
    assert seen.pop("1") == seen.pop("2")
    reserve, stack, pipe = sorted(seen.values())
    assert reserve == "/dev/null"
    assert stack.startswith("/memfd:stack")
    assert pipe.startswith("socket:")


async def test_all_that_is_printed_reaches_the_log_with_its_job(server: DevServer, state: Path) -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream=stream)

    async with supervising(server, state):
        job = await finished_job(server, await start_job(server, "prints", {"line": "from print()"}))

    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    printed = [entry for entry in entries if entry["event"] == "printed"]
    assert [entry["line"] for entry in printed] == ["from print()", "raw on descriptor 1", "raw on descriptor 2"]
    assert {(entry["job_id"], entry["action"], entry["attempt"]) for entry in printed} == {(job.id, "prints", 1)}
    assert all(entry["slot"] and entry["pid"] for entry in printed)


async def test_what_a_handler_logs_keeps_its_level(server: DevServer, state: Path) -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream=stream)

    async with supervising(server, state):
        job = await finished_job(server, await start_job(server, "logs"))

    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    (entry,) = [entry for entry in entries if entry["event"] == "page 3 of the book is odd"]
    assert (entry["level"], entry["job_id"]) == ("warning", job.id)


async def test_the_key_is_in_no_line_of_the_log(server: DevServer, state: Path) -> None:
    stream = io.StringIO()
    log.configure("debug", "json", stream=stream, mask=Mask([KEY]))

    async with supervising(server, state):
        await finished_job(server, await start_job(server, "prints", {"line": f"found {KEY}"}))

    assert "found" in stream.getvalue()
    assert KEY not in stream.getvalue()
