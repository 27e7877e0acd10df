"""From a claim to a report: every way in which a job can end by itself."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from supervisor.devserver.app import DevServer
from tests.harness import events, finished_job, reports, result_of, start_job, supervising


async def outcome_of(server: DevServer, state: Path, action: str, parameters: dict[str, Any] | None = None) -> Any:
    """The body of the one report of a job."""
    async with supervising(server, state):
        run = await start_job(server, action, parameters)
        job = await finished_job(server, run)
    (report,) = reports(server, job.id)
    return report.body


async def test_a_result_is_reported_as_json(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        run = await start_job(server, "echo", {"size": 3, "name": "ä"})
        job = await finished_job(server, run)

    (report,) = reports(server, job.id)
    assert report.body["status"] == "completed"
    assert result_of(report) == {"size": 3, "name": "ä"}


@pytest.mark.parametrize(
    ("action", "parameters", "error_type", "told"),
    [
        ("raise", {}, "ValueError", ["there is no such page", 'raise ValueError("there is no such page")']),
        ("raise-permanent", {}, "fatal_error", ["the document is not a document"]),
        ("exit", {}, "SystemExit", ["3"]),
        ("not-a-number", {}, "InvalidResult", ["ratio"]),
        ("not-json", {}, "InvalidResult", ["lock"]),
        ("area", {"size": {"width": 1, "height": 2}, "tmies": 3}, "InvalidParameters", ["tmies"]),
        ("area", {"size": {"width": "1", "height": 2}}, "InvalidParameters", ["size.width", "int"]),
        ("area", {}, "InvalidParameters", ["size"]),
        ("too-slow", {}, "Timeout", ["timeout"]),
        ("die-by-signal", {"number": signal.SIGKILL}, "ChildDied", ["SIGKILL", "about to die"]),
        ("segfault", {}, "ChildDied", ["SIGSEGV", "Segmentation fault"]),
        ("die-by-exit", {"code": 0}, "ChildDied", ["exited with code 0"]),
        ("die-by-exit", {"code": 9}, "ChildDied", ["exited with code 9"]),
    ],
)
async def test_a_failure_is_reported_with_its_type_and_reason(
    server: DevServer, state: Path, action: str, parameters: dict[str, Any], error_type: str, told: list[str]
) -> None:
    body = await outcome_of(server, state, action, parameters)

    assert (body["status"], body["error_type"]) == ("failed", error_type)
    for text in told:
        assert text in body["error_message"]
    assert len(body["error_message"].encode()) <= 8 * 1024


@pytest.mark.parametrize("action", ["raise", "async-raise"])
async def test_a_traceback_shows_the_handlers_part_only(server: DevServer, state: Path, action: str) -> None:
    body = await outcome_of(server, state, action)

    assert "outcomes.py" in body["error_message"]
    assert "supervisor/child/" not in body["error_message"]


async def test_no_result_is_no_output(server: DevServer, state: Path) -> None:
    body = await outcome_of(server, state, "nothing")

    assert body["status"] == "completed"
    assert "result_b64" not in body


async def test_bytes_are_reported_as_they_are(server: DevServer, state: Path) -> None:
    import base64

    body = await outcome_of(server, state, "raw-bytes")

    assert base64.b64decode(body["result_b64"]) == bytes(range(256))


async def test_a_result_too_big_for_a_frame_arrives_whole(server: DevServer, state: Path) -> None:
    import base64

    body = await outcome_of(server, state, "big-result", {"size": 5_000_000})

    assert base64.b64decode(body["result_b64"]) == b"0123456789abcdef" * (5_000_000 // 16)


async def test_parameters_too_big_for_a_frame_arrive_whole(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        run = await start_job(server, "echo", {"text": "x" * 3_000_000})
        job = await finished_job(server, run)

    assert result_of(reports(server, job.id)[0]) == {"text": "x" * 3_000_000}


async def test_a_coroutine_function_is_a_handler_too(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        run = await start_job(server, "async-echo", {"text": "hello"})
        job = await finished_job(server, run)

    assert result_of(reports(server, job.id)[0]) == "hello"


async def test_events_arrive_in_order_and_before_the_report(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        run = await start_job(server, "emits", {"count": 2_500})
        job = await finished_job(server, run)

    assert [payload["number"] for payload in events(server, run, "tick")] == list(range(2_500))
    batches = [call for call in server.calls if call.name == "events"]
    assert max(len(call.body["events"]) for call in batches) <= 100
    (report,) = reports(server, job.id)
    assert all(call.answered_at is not None and call.answered_at <= report.received_at for call in batches)


async def test_waiting_progress_collapses_to_the_newest(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        run = await start_job(server, "emits", {"count": 2_500, "kind": "progress"})
        await finished_job(server, run)

    numbers = [payload["number"] for payload in events(server, run, "progress")]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 2_499
    assert len(numbers) < 2_500


async def test_a_handler_knows_its_job(server: DevServer, state: Path) -> None:
    async with supervising(server, state) as supervisor:
        run = await start_job(server, "about", {})
        job = await finished_job(server, run)

    assert result_of(reports(server, job.id)[0]) == {
        "job_id": job.id,
        "run_id": run,
        "workflow_name": "about",
        "step_name": "only",
        "action": "about",
        "attempt": 1,
        "queue": "default",
        "worker_id": supervisor.settings.worker_id,
        "parameters": {},
        "cancelled": False,
    }


async def test_only_jobs_of_known_actions_are_claimed(server: DevServer, state: Path) -> None:
    async with supervising(server, state):
        await finished_job(server, await start_job(server, "nothing"))

    claims = [call.body for call in server.calls if call.name == "claim"]
    assert all("nothing" in claim["actions"] and claim["queues"] == ["default"] for claim in claims)


async def test_the_scratch_folder_is_gone_after_the_job(server: DevServer, state: Path) -> None:
    async with supervising(server, state, workers="1"):
        run = await start_job(server, "workdir")
        job = await finished_job(server, run)

        folder = Path(result_of(reports(server, job.id)[0]))
        await finished_job(server, await start_job(server, "nothing"))
        await finished_job(server, await start_job(server, "nothing"))

        assert not folder.exists()
