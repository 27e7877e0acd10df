"""The published client against the development server: what it accepts, others who speak the protocol will.

Its calls block, so they run in threads; its models refuse every key they do not know.
"""

import asyncio
import contextlib
import threading
from typing import Any

import deepnoodle.mobius as sdk
import pytest
from deepnoodle.mobius._api import models  # the published models are its contract; it exports no public path to them

from tests.devserver_fixtures import PROJECT, calls_named, running, spec

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # what the program runs on


@pytest.fixture
async def served():
    async with running(heartbeat_interval=1) as pair:
        yield pair


@pytest.fixture
async def server(served):
    return served[0]


@pytest.fixture
async def client(server):
    with sdk.Client("mbx_test", base_url=server.url, project=PROJECT) as client:
        yield client


@contextlib.asynccontextmanager
async def working(client: sdk.Client, **actions: Any):
    """The published worker in a thread, until the block ends."""
    worker = sdk.Worker(client, sdk.WorkerConfig(worker_id="sdk", name="box", poll_wait_seconds=1), actions)
    thread = asyncio.create_task(asyncio.to_thread(worker.run))
    try:
        yield worker
    finally:
        worker.stop()
        await thread


def flow(*steps: dict[str, Any], **rest: Any) -> Any:
    return models.WorkflowSpec.model_validate(spec(*steps, **rest))


async def started(client: sdk.Client, *steps: dict[str, Any], **options: Any) -> Any:
    return await asyncio.to_thread(client.start_run, flow(*steps), sdk.StartRunOptions(**options))


async def waited(client: sdk.Client, run_id: str) -> Any:
    return await asyncio.to_thread(client.wait_run, run_id, sdk.WaitRunOptions(timeout=20, reconnect_delay=0.01))


async def test_its_worker_runs_the_steps_of_a_run(server, client):
    steps = [
        {"parameters": {"n": "${inputs.n}"}, "store": "first"},
        {"parameters": {"n": "${state.first.n}"}},
    ]
    async with working(client, work=lambda parameters: {"n": parameters["n"] + 1}):
        run = await started(client, *steps, inputs={"n": 1})
        detail = await waited(client, run.id)

    assert detail.status.value == "completed"
    assert server.run(run.id).result == b'{"n": 3}'
    assert [job.status.value for job in detail.jobs] == ["completed", "completed"]


async def test_its_worker_fails_a_job(client):
    def work(parameters: dict[str, Any]) -> None:
        raise ValueError("no such luck")

    async with working(client, work=work):
        run = await started(client)
        detail = await waited(client, run.id)

    assert (detail.status.value, detail.error_type.value) == ("failed", "job_failed")
    assert (detail.jobs[0].error_type, detail.jobs[0].last_error) == ("Error", "no such luck")


async def test_its_worker_retries_a_job(client):
    attempts = []

    def work(context: sdk.ActionContext, parameters: dict[str, Any]) -> None:
        attempts.append(context.attempt)
        if context.attempt == 1:
            raise ValueError("once more")

    async with working(client, work=work):
        run = await started(client, {"retry": [{"max_retries": 1, "base_delay": "10ms"}]})
        detail = await waited(client, run.id)

    assert detail.status.value == "completed"
    assert attempts == [1, 2]


async def test_its_worker_sends_heartbeats_and_events(server, client):
    finish = threading.Event()

    def work(context: sdk.ActionContext, parameters: dict[str, Any]) -> None:
        context.emit_event("progress", {"percent": 50})
        finish.wait(20)

    async with working(client, work=work):
        run = await started(client)
        await server.until(lambda: server.events(run.id) or None)
        await server.until(lambda: calls_named(server, "heartbeat") or None)
        finish.set()
        await waited(client, run.id)

    assert server.events(run.id)[0]["data"] == {"percent": 50}
    assert {call.status for call in calls_named(server, "heartbeat")} == {200}


async def test_it_watches_a_run(server, client):
    async with working(client, work=lambda _: None):
        run = await started(client)
        events = await asyncio.to_thread(lambda: list(client.watch_run(run.id)))
        later = await asyncio.to_thread(lambda: list(client.watch_run(run.id, since=events[-2].seq)))

    assert {event.type for event in events} == {"run_updated", "job_updated"}
    assert events[-1].data["status"] == "completed"
    assert later[-1] == events[-1]
    for event in events:
        model = models.Job if event.type == "job_updated" else models.WorkflowRun
        model.model_validate(event.data)


async def test_it_cancels_a_pending_run(client):
    run = await started(client)

    await asyncio.to_thread(client.cancel_run, run.id)

    detail = await waited(client, run.id)
    assert (detail.status.value, detail.error_type.value) == ("failed", "run_cancelled")
    assert detail.cancel_requested_at is not None


async def test_it_lists_and_gets_runs(client):
    first = await started(client, external_id="a", metadata={"k": "v"}, tags=models.TagMap({"env": "dev"}))
    await started(client, queue="other")

    found = await asyncio.to_thread(client.list_runs, sdk.ListRunsOptions(external_id="a"))
    page = await asyncio.to_thread(client.list_runs, sdk.ListRunsOptions(limit=1))
    detail = await asyncio.to_thread(client.get_run, first.id)

    assert [run.id for run in found.items] == [first.id]
    assert page.has_more
    assert page.next_cursor is not None
    assert detail.metadata == {"k": "v"}
    assert detail.spec.name == "flow"
    assert set(detail.model_extra or {}) == set()


async def test_its_models_accept_the_jobs_and_the_workers(served, client):
    _, caller = served
    run = await started(client, {"parameters": {"a": 1}})
    job = await caller.claim(worker_name="box")
    await caller.complete(job, "failed", error_type="Boom")

    _, one = await caller.get(f"jobs/{job['job_id']}")
    _, several = await caller.get(f"runs/{run.id}/jobs")
    _, workers = await caller.get("worker-sessions")

    assert models.Job.model_validate(one).error_type == "Boom"
    assert models.JobListResponse.model_validate(several).items[0].id == job["job_id"]
    assert models.WorkerSessionListResponse.model_validate(workers).items[0].stale is False


async def test_a_refused_key_ends_its_worker():
    async with running(api_key="mbx_right") as (server, _):
        with sdk.Client("mbx_wrong", base_url=server.url, project=PROJECT) as client:
            worker = sdk.Worker(client, sdk.WorkerConfig(poll_wait_seconds=0))

            with pytest.raises(sdk.AuthRevokedError):
                await asyncio.to_thread(worker.run)
