"""A handler that kills its children is left out of claims, so that other workers get its jobs; trials bring it back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog.testing
from aiohttp import ClientSession

from supervisor.devserver.app import DevServer
from supervisor.pool import quarantine
from tests.harness import GENEROUS, calls, finished_job, reports, start_job, supervising
from tests.process_world import module

JOBS = 25
WORKERS = 2

HANDLERS = """
    import os
    from pathlib import Path
    from supervisor import handler

    @handler("crashes")
    def crashes(flag: str) -> None:
        if not Path(flag).exists():
            os.abort()

    @handler("fine")
    def fine() -> None:
        pass
"""


def crashed(server: DevServer, runs: list[str]) -> int:
    return sum(server.jobs(run)[0].status == "failed" for run in runs)


async def test_a_crash_storm_costs_few_jobs_and_a_trial_that_survives_ends_it(
    server: DevServer, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "FIRST_PAUSE", 0.5)
    flag = tmp_path / "mended"
    handlers = str(module(tmp_path / "storm", HANDLERS))
    with structlog.testing.capture_logs() as logged:
        async with supervising(server, state, handlers=handlers, workers=str(WORKERS), wait_seconds="1"):
            runs = [await start_job(server, "crashes", {"flag": str(flag)}) for _ in range(JOBS)]
            await server.until(lambda: trials(logged, 2) or None, timeout=GENEROUS)
            burned = crashed(server, runs)
            fine = await finished_job(server, await start_job(server, "fine"))
            flag.touch()
            ends = [(await finished_job(server, run)).error_type for run in runs]

    pauses = [line["trial_in"] for line in logged if line["event"].startswith("handler quarantined")]
    assert fine.status == "completed"
    assert pauses[:2] == [0.5, 1.0]
    assert burned <= quarantine.MAX_CRASHES + WORKERS + 1
    assert set(ends) == {"ChildDied", None}
    assert [line["action"] for line in logged if line["event"].startswith("handler quarantine ended")] == ["crashes"]


def trials(logged: list[object], count: int) -> bool:
    """Whether so many pauses have begun."""
    return sum("handler quarantined" in str(line) for line in logged) >= count


async def test_other_handlers_are_claimed_meanwhile_and_operators_see_which_are_not(
    server: DevServer, state: Path, tmp_path: Path
) -> None:
    flag, handlers = tmp_path / "mended", str(module(tmp_path / "storm", HANDLERS))
    with structlog.testing.capture_logs() as logged:
        async with (
            supervising(server, state, handlers=handlers, workers="1", listen="127.0.0.1:0"),
            ClientSession() as client,
        ):
            for _ in range(quarantine.MAX_CRASHES):
                await finished_job(server, await start_job(server, "crashes", {"flag": str(flag)}))
            waiting = await start_job(server, "crashes", {"flag": str(flag)})
            fine = await finished_job(server, await start_job(server, "fine"))
            (page,) = [line["page"] for line in logged if line["event"] == "listening"]
            async with client.get(f"{page}readyz") as answer:
                ready = answer.status, json.loads(await answer.text())
            async with client.get(f"{page}metrics") as answer:
                metrics = await answer.text()
            asked = [call.body["actions"] for call in calls(server, "claim")]
            status = server.jobs(waiting)[0].status

    assert (fine.status, status) == ("completed", "pending")
    assert asked[0] == ["crashes", "fine"]
    assert asked[-1] == ["fine"]
    assert ready == (200, {"ok": True, "quarantined": ["crashes"]})
    assert "mobius_supervisor_quarantined_handlers 1.0" in metrics


async def test_where_every_handler_is_quarantined_nothing_is_claimed_until_a_trial(
    server: DevServer, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "FIRST_PAUSE", 1.0)
    only = HANDLERS.partition('    @handler("fine")')[0]
    flag, handlers = tmp_path / "mended", str(module(tmp_path / "storm", only))
    with structlog.testing.capture_logs() as logged:
        async with (
            supervising(server, state, handlers=handlers, workers="2", listen="127.0.0.1:0"),
            ClientSession() as client,
        ):
            for _ in range(quarantine.MAX_CRASHES):
                await finished_job(server, await start_job(server, "crashes", {"flag": str(flag)}))
            await server.until(lambda: trials(logged, 1) or None, timeout=GENEROUS)
            (page,) = [line["page"] for line in logged if line["event"] == "listening"]
            async with client.get(f"{page}readyz") as answer:
                ready = answer.status, json.loads(await answer.text())["reason"]
            flag.touch()
            trial = await finished_job(server, await start_job(server, "crashes", {"flag": str(flag)}))

    assert ready == (503, "every handler is quarantined for crashes: nothing is claimed but one trial job at a time")
    assert trial.status == "completed"


async def test_a_job_that_kills_its_child_again_and_again_is_not_run(
    server: DevServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "FIRST_PAUSE", 0.01)  # its handler has trials meanwhile
    again = [{"max_retries": 5, "base_delay": "1ms", "max_delay": "1ms", "backoff_rate": 1.0}]
    async with supervising(server, state, workers="1", wait_seconds="1"):
        job = await finished_job(server, await start_job(server, "segfault", retry=again))

    assert job.error_type == "Quarantined"
    assert "this job killed its child 3 times in a row" in reports(server, job.id)[-1].body["error_message"]
