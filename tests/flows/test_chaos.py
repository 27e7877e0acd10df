"""Every kind of fault on every call: each job ends as it must, once, and nothing is left of any of them.

All calls of one kind of fault are tried in one go: the first job that is handed out suffers in its claim, the second in
a heartbeat, and so on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisor.devserver.app import DevServer, DevServerSettings
from supervisor.devserver.faults import KINDS, parse_faults
from supervisor.dialects.http import client
from tests.harness import calls, events, finished_job, reports, result_of, start_job, supervising

pytestmark = pytest.mark.asyncio(
    loop_factories=["uvloop"]
)  # the production's; the other sees the same in test_saboteur

CALLS = ("claim", "heartbeat", "events", "complete")
AGAIN = [{"max_retries": 5, "base_delay": "0s"}]
TTL = 2.0
"""Seconds until the server takes back what it believes to be handed out."""
KEYS: dict[str, dict[str, Any]] = {
    "status": {"status": 503},
    "delay": {"seconds": 0.3},
    "reset": {"bytes": 60},
    "slow": {"seconds": 0.001},
}
REPEATED = {"status", "hang", "hang_up"}
"""Kinds that make no difference to the server, so that they may fall more than once."""
UNREADABLE = {"lose_answer", "reset", "truncate", "garbage", "wrong_type"}
"""Kinds after which the server believes that the job was handed out, and the worker has none."""


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_TIMEOUT", 0.7)
    monkeypatch.setattr(client, "CLAIM_MARGIN", 0.5)


@asynccontextmanager
async def chaotic(*faults: dict[str, Any]) -> AsyncIterator[DevServer]:
    script = parse_faults({"faults": faults, "seed": 1})
    settings = DevServerSettings(heartbeat_interval=0.2, lease_ttl=TTL, journal=True, faults=script)
    async with DevServer(settings) as server:
        yield server


def one_for_each_call(kind: str, **keys: Any) -> list[dict[str, Any]]:
    """A fault for the first job that is handed out, on its claim, one for the second, on its first beat, ..."""
    when = {"first": 2} if kind in REPEATED else {"nth": 1}
    return [
        {"what": kind, "call": call, "claimed": number} | when | KEYS.get(kind, {}) | keys
        for number, call in enumerate(CALLS, 1)
    ]


async def run_jobs(server: DevServer, state: Path, count: int = len(CALLS)) -> list[Any]:
    """The jobs, in the order in which they were handed out first, after they have ended."""
    async with supervising(server, state, workers=str(count), wait="1", lease_ttl=f"{TTL}s"):
        runs = [
            await start_job(server, "emits-then-sleeps", {"count": 3, "seconds": 0.4}, retry=AGAIN)
            for _ in range(count)
        ]
        jobs = [await finished_job(server, run) for run in runs]
        await server.until(lambda: all(call.answered_at for call in calls(server, "complete")))
        return jobs


def accepted(server: DevServer, job: Any) -> list[tuple[int, str, Any]]:
    """The different reports of a job that the server has accepted: attempt, status, result."""
    told = [call for call in reports(server, job.id) if call.status is not None and call.status < 300]
    return sorted({(call.body["attempt"], call.body["status"], result_of(call)) for call in told})


def assert_completed_once(server: DevServer, job: Any, *, attempt: int) -> None:
    assert (job.status, job.attempt) == ("completed", attempt), job
    assert accepted(server, job) == [(attempt, "completed", 3)]
    assert server.run(job.run_id).status == "completed"


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"expire_lease", "cancel", "duplicate_claim"}))
async def test_a_job_survives_a_fault_on_any_of_its_calls_and_completes_once(state: Path, kind: str) -> None:
    async with chaotic(*one_for_each_call(kind)) as server:
        jobs = await run_jobs(server, state)

        assert sum(server.faults_injected.values()) >= len(CALLS)
        for job, call in zip(jobs, CALLS, strict=True):
            # A job that nobody has got is handed out again once its lease is over.
            assert_completed_once(server, job, attempt=2 if call == "claim" and kind in UNREADABLE else 1)


@pytest.mark.parametrize("asked", [{"retry_after": 1}, {"retry_date": 1}, {"retry_after": "soon"}])
async def test_a_server_that_asks_for_patience_gets_it(state: Path, asked: dict[str, Any]) -> None:
    async with chaotic(*one_for_each_call("status", status=429, nth=1, **asked)) as server:
        jobs = await run_jobs(server, state)

        for job in jobs:
            assert_completed_once(server, job, attempt=1)


async def test_what_is_no_http_is_no_answer(state: Path) -> None:
    async with chaotic(*one_for_each_call("garbage", of="http")) as server:
        jobs = await run_jobs(server, state)

        for number, job in enumerate(jobs):
            assert_completed_once(server, job, attempt=1 if number else 2)


@pytest.mark.parametrize("status", [404, 409])
async def test_a_refusal_ends_the_attempt_and_another_completes(state: Path, status: int) -> None:
    async with chaotic(*one_for_each_call("status", status=status, nth=1)[1:3]) as server:
        jobs = await run_jobs(server, state, 3)

        assert_completed_once(server, jobs[0], attempt=1)
        for job in jobs[1:]:
            assert_completed_once(server, job, attempt=2)


async def test_an_expired_lease_ends_the_attempt_and_another_completes(state: Path) -> None:
    async with chaotic(*one_for_each_call("expire_lease")) as server:
        jobs = await run_jobs(server, state)

        assert server.faults_injected == {"expire_lease": len(CALLS)}
        for job in jobs:
            assert_completed_once(server, job, attempt=2)


async def test_a_cancel_ends_the_run_at_whatever_call_it_comes(state: Path) -> None:
    async with chaotic(*one_for_each_call("cancel")) as server:
        jobs = await run_jobs(server, state)

        assert [server.run(job.run_id).error_type for job in jobs] == ["run_cancelled"] * len(CALLS)
        assert [job.error_type for job in jobs[:2]] == ["Cancelled"] * 2
        assert jobs[3].status == "completed"  # it was on its way already
        assert all(len(accepted_statuses(server, job)) == 1 for job in jobs)


def accepted_statuses(server: DevServer, job: Any) -> set[str]:
    return {call.body["status"] for call in reports(server, job.id) if call.status == 204}


async def test_a_job_that_is_handed_out_twice_runs_once(state: Path) -> None:
    async with chaotic({"what": "duplicate_claim", "call": "claim", "nth": 1}) as server:
        jobs = await run_jobs(server, state, 2)

        for job in jobs:
            assert (job.status, job.attempt) == ("completed", 1)
            assert accepted(server, job) == [(1, "completed", 3)]
            assert len(events(server, job.run_id, "tick")) == 3


@pytest.mark.parametrize("kind", ["status", "delay", "hang_up", "lose_answer", "reset", "truncate", "garbage", "slow"])
async def test_a_look_up_that_fails_costs_no_result(state: Path, kind: str) -> None:
    # Only what may have been accepted and is then refused is looked up.
    faults = (
        {"what": "lose_answer", "call": "complete", "nth": 1},
        {"what": "status", "call": "complete", "nth": 2, "status": 409},
        {"what": kind, "call": "get_job"} | KEYS.get(kind, {}),
    )
    async with chaotic(*faults) as server:
        (job,) = await run_jobs(server, state, 1)
        await server.until(lambda: calls(server, "get_job") or None)

        assert_completed_once(server, job, attempt=1)


async def test_a_storm_of_all_of_them_loses_no_job(state: Path) -> None:
    storm = [
        {"what": kind, "call": call, "probability": 0.04} | KEYS.get(kind, {})
        for kind in KINDS
        for call in (CALLS if kind != "duplicate_claim" else ("claim",))
        if kind != "cancel"
    ]
    async with chaotic(*storm) as server:
        jobs = await run_jobs(server, state, 8)

        for job in jobs:
            assert job.status == "completed"
            assert len([told for told in accepted(server, job) if told[1] == "completed"]) == 1
