"""The meeting of jobs and waiting polls, with a loop that is held up."""

import asyncio
import time
from contextlib import asynccontextmanager

import msgspec
import pytest

from supervisor.devserver.dispatch import ChangeSignal, Dispatch
from supervisor.devserver.requests import ClaimRequest, CompleteRequest, RunRequest
from supervisor.devserver.store import Store

PROJECT = "demo"
DELAY = 0.05
RUN = {
    "spec": {
        "name": "flow",
        "steps": [{"name": "s", "action": "work", "retry": [{"max_retries": 1, "base_delay": "50ms"}]}],
    }
}


@pytest.fixture
def store():
    store = Store(lease_ttl=30, jitter=lambda: 0.0)
    yield store
    store.close()


@asynccontextmanager
async def keeping_time(dispatch: Dispatch):
    clock = asyncio.create_task(dispatch.keep_time())
    try:
        yield
    finally:
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)


async def test_a_backoff_that_elapses_while_the_loop_is_held_up_is_not_missed(store):
    dispatch = Dispatch(store, ChangeSignal())
    async with keeping_time(dispatch):
        store.start_run(PROJECT, msgspec.convert(RUN, RunRequest), time.time())
        job = await dispatch.claim(PROJECT, ClaimRequest("w"), lambda: True)
        poll = asyncio.create_task(dispatch.claim(PROJECT, ClaimRequest("w", wait_seconds=30), lambda: True))
        await asyncio.sleep(0)

        failed = CompleteRequest("w", job.attempt, "failed", error_type="Boom", error_message="no")
        store.complete(PROJECT, job.id, failed, time.time())
        dispatch.follow_up()
        time.sleep(2 * DELAY)  # the loop stands still

        again = await asyncio.wait_for(poll, 10)
        assert (again.id, again.attempt) == (job.id, 2)
