"""The development server's store by itself: each test says what time it is."""

import itertools
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisor import devserver
from supervisor.devserver.errors import FenceRefused, Invalid, Unknown
from supervisor.devserver.records import Job
from supervisor.devserver.requests import ClaimRequest, CompleteRequest, EventEntry, FenceRequest, RunFilter, RunRequest
from supervisor.devserver.retry import RetryPolicy, retry_delay, seconds
from supervisor.devserver.spec import outputs_of, parameters_of, resolve
from supervisor.devserver.store import Store

NOW = 1_000_000.0
PROJECT = "demo"
RETRY_TWICE = [{"max_retries": 2, "base_delay": "10s", "backoff_rate": 3}]


def test_no_statement_numbers_its_placeholders():
    """Python 3.12.0 and 3.12.1 take `?1` for a name, and warn that it gets no mapping."""
    sources = list(Path(devserver.__file__).parent.glob("*.py"))

    assert len(sources) > 10
    assert [file.name for file in sources if re.search(r"""["' (]\?\d""", file.read_text())] == []


def numbered_ids():
    numbers = itertools.count(1)
    return lambda kind: f"{kind}_{next(numbers)}"


@pytest.fixture
def store():
    store = Store(lease_ttl=30, new_id=numbered_ids(), jitter=lambda: 0.5)
    yield store
    store.close()


@pytest.fixture
def strict_store():
    store = Store(lease_ttl=30, immediate_cancellation=True)
    yield store
    store.close()


def request(*steps: dict[str, Any], inputs: dict[str, Any] | None = None, **rest: Any) -> RunRequest:
    named = [{"name": f"step{number}", "action": "work"} | step for number, step in enumerate(steps or ({},), 1)]
    outside = {name: rest.pop(name) for name in ("queue", "external_id") if name in rest}
    return msgspec.convert(
        {"spec": {"name": "flow", "steps": named, **rest}, "inputs": inputs or {}, **outside}, RunRequest
    )


def claim(store: Store, worker: str = "w", now: float = NOW, **wish: Any) -> Job | None:
    return store.claim(PROJECT, ClaimRequest(worker, **wish), now)


def started_and_claimed(store: Store, *steps: dict[str, Any], **rest: Any) -> Job:
    store.start_run(PROJECT, request(*steps, **rest), NOW)
    job = claim(store)
    assert job is not None
    return job


def complete(store: Store, job: Job, result: bytes | None = None, now: float = NOW) -> None:
    store.complete(PROJECT, job.id, CompleteRequest(str(job.claimed_by), job.attempt, "completed", result), now)


def fail(store: Store, job: Job, error_type: str = "Boom", now: float = NOW) -> None:
    report = CompleteRequest(str(job.claimed_by), job.attempt, "failed", None, error_type, "it broke")
    store.complete(PROJECT, job.id, report, now)


def fence(job: Job, **other: Any) -> FenceRequest:
    return FenceRequest(**{"worker_id": job.claimed_by, "attempt": job.attempt} | other)


# Claims


def test_the_oldest_job_is_claimed_first(store):
    first = store.start_run(PROJECT, request(), NOW)
    store.start_run(PROJECT, request(), NOW)

    job = claim(store)

    assert job.run_id == first.id
    assert (job.status, job.attempt, job.claimed_by, job.expires_at) == ("claimed", 1, "w", NOW + 30)


def test_a_job_is_claimed_once(store):
    store.start_run(PROJECT, request(), NOW)

    assert claim(store) is not None
    assert claim(store) is None


def test_a_claim_takes_only_the_actions_it_names(store):
    store.start_run(PROJECT, request({"action": "other"}), NOW)

    assert claim(store, actions=("work",)) is None
    assert claim(store, actions=("work", "other")) is not None


def test_a_claim_takes_only_the_queues_it_names(store):
    store.start_run(PROJECT, request(queue="slow"), NOW)

    assert claim(store, queues=("default",)) is None
    assert claim(store, queues=()) is not None


def test_a_claim_sees_its_own_project_only(store):
    store.start_run("another", request(), NOW)

    assert claim(store) is None


def test_a_released_job_comes_again_with_the_same_attempt(store):
    job = started_and_claimed(store)

    store.release(job, NOW)

    assert claim(store, "other").attempt == 1


def test_a_lease_that_was_used_is_not_taken_back(store):
    job = started_and_claimed(store)
    store.heartbeat(PROJECT, job.id, fence(job), NOW)

    store.release(job, NOW)

    assert store.job(PROJECT, job.id).status == "claimed"


# Fences


def test_the_holder_may_renew(store):
    job = started_and_claimed(store)

    assert store.heartbeat(PROJECT, job.id, fence(job), NOW + 20) is False

    assert store.job(PROJECT, job.id).expires_at == NOW + 50


@pytest.mark.parametrize("other", [{"worker_id": "thief"}, {"attempt": 2}])
def test_another_fence_is_refused_everywhere(store, other):
    job = started_and_claimed(store)
    stale = fence(job, **other)

    with pytest.raises(FenceRefused):
        store.heartbeat(PROJECT, job.id, stale, NOW)
    with pytest.raises(FenceRefused):
        store.publish(PROJECT, job.id, stale, [EventEntry("progress", {})], NOW)
    with pytest.raises(FenceRefused):
        store.complete(PROJECT, job.id, CompleteRequest(stale.worker_id, stale.attempt, "completed"), NOW)


def test_a_job_nobody_knows_is_unknown(store):
    with pytest.raises(Unknown):
        store.heartbeat(PROJECT, "job_9", FenceRequest("w", 1), NOW)


def test_a_job_of_another_project_is_unknown(store):
    job = started_and_claimed(store)

    with pytest.raises(Unknown):
        store.heartbeat("another", job.id, fence(job), NOW)


def test_a_heartbeat_after_the_end_of_the_lease_is_refused_even_before_the_expiry(store):
    job = started_and_claimed(store)

    with pytest.raises(FenceRefused, match="run out"):
        store.heartbeat(PROJECT, job.id, fence(job), NOW + 30)


def test_the_same_report_twice_is_accepted_once(store):
    job = started_and_claimed(store)
    complete(store, job, b"1")

    complete(store, job, b"1")

    assert [event.type for event in store.events_after(0, project=PROJECT)].count("job_updated") == 3


def test_another_report_after_the_first_is_refused(store):
    job = started_and_claimed(store)
    complete(store, job, b"1")

    with pytest.raises(FenceRefused):
        complete(store, job, b"2")


def test_a_repeated_failure_report_does_not_touch_the_next_attempt(store):
    job = started_and_claimed(store, {"retry": RETRY_TWICE})
    fail(store, job)
    again = claim(store, "other", NOW + 10)

    fail(store, job, now=NOW + 11)

    assert store.job(PROJECT, job.id) == again


# Expiry


def test_a_silent_lease_runs_out_at_its_ttl(store):
    job = started_and_claimed(store)

    assert store.next_wake_at(NOW) == NOW + 30
    assert store.expire(NOW + 29.9) is False
    assert store.expire(NOW + 30) is True

    ended = store.job(PROJECT, job.id)
    assert (ended.status, ended.error_type) == ("failed", "liveness_timeout")
    assert store.run(PROJECT, job.run_id).error_type == "job_failed"


def test_an_expired_job_comes_again_while_attempts_are_left(store):
    job = started_and_claimed(store, {"retry": RETRY_TWICE})

    store.expire(NOW + 30)

    again = claim(store, "other", NOW + 30)
    assert (again.id, again.attempt, again.claimed_by) == (job.id, 2, "other")
    with pytest.raises(FenceRefused):
        store.heartbeat(PROJECT, job.id, fence(job), NOW + 31)


# Retries


def test_a_failure_without_a_retry_block_fails_the_run(store):
    job = started_and_claimed(store)

    fail(store, job)

    run = store.run(PROJECT, job.run_id)
    assert (run.status, run.error_type) == ("failed", "job_failed")
    assert "Boom: it broke" in run.error_message
    assert store.job(PROJECT, job.id).error_type == "Boom"


def test_a_retry_waits_for_its_backoff(store):
    job = started_and_claimed(store, {"retry": RETRY_TWICE})

    fail(store, job)

    assert claim(store, now=NOW + 9.9) is None
    assert store.next_wake_at(NOW) == NOW + 10
    again = claim(store, now=NOW + 10)
    assert (again.id, again.attempt, again.last_error) == (job.id, 2, "it broke")


def test_the_last_failure_fails_the_run(store):
    job = started_and_claimed(store, {"retry": RETRY_TWICE})
    for now in (NOW, NOW + 100, NOW + 200):
        fail(store, job, now=now)
        job = claim(store, now=now + 100) or job

    assert (job.attempt, job.max_attempts) == (3, 3)
    assert store.run(PROJECT, job.run_id).status == "failed"


@pytest.mark.parametrize(
    ("policy", "error_type", "attempt", "delay"),
    [
        ({}, "Boom", 1, 1.0),
        ({}, "Boom", 3, 4.0),
        ({}, "Boom", 4, None),
        ({}, "fatal_error", 1, None),
        ({"error_equals": ["fatal_error"]}, "fatal_error", 1, 1.0),
        ({"error_equals": ["Timeout"]}, "Boom", 1, None),
        ({"error_equals": ["Timeout", "Boom"]}, "Boom", 1, 1.0),
        ({"base_delay": "10s", "max_delay": "15s"}, "Boom", 2, 15.0),
        ({"base_delay": "10s", "jitter_strategy": "FULL"}, "Boom", 1, 5.0),
        ({"max_retries": 0}, "Boom", 1, None),
        ({"max_retries": 10_000, "max_delay": "1m"}, "Boom", 9_999, 60.0),
    ],
)
def test_a_policy_decides_on_the_next_attempt(policy, error_type, attempt, delay):
    policies = [msgspec.convert(policy, RetryPolicy)]

    assert retry_delay(policies, error_type, attempt, lambda: 0.5) == delay


def test_the_first_policy_that_covers_the_error_decides():
    policies = [RetryPolicy(error_equals=["Boom"], max_retries=0), RetryPolicy()]

    assert retry_delay(policies, "Boom", 1, lambda: 1.0) is None
    assert retry_delay(policies, "Other", 1, lambda: 1.0) == 1.0


@pytest.mark.parametrize(
    ("text", "length"), [("1s", 1.0), ("500ms", 0.5), ("1h30m", 5400.0), ("1.5s", 1.5), ("0", 0.0), ("2us", 2e-6)]
)
def test_durations_are_read(text, length):
    assert seconds(text) == length


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1 s", "1s\n", "1d"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"base_delay": text}, RetryPolicy)


# Cancellation


def test_a_pending_job_is_cancelled_at_once(store):
    run = store.start_run(PROJECT, request(), NOW)

    store.cancel(PROJECT, run.id, NOW)

    assert store.run(PROJECT, run.id).error_type == "run_cancelled"
    assert [(job.status, job.error_type) for job in store.jobs(run.id)] == [("failed", "run_cancelled")]
    assert claim(store) is None


def test_a_claimed_job_is_told_and_ends_the_run_with_its_report(store):
    job = started_and_claimed(store, {"retry": RETRY_TWICE})

    store.cancel(PROJECT, job.run_id, NOW)

    assert store.run(PROJECT, job.run_id).status == "active"
    assert store.heartbeat(PROJECT, job.id, fence(job), NOW) is True
    fail(store, job, "Cancelled")
    assert store.run(PROJECT, job.run_id).error_type == "run_cancelled"
    assert store.job(PROJECT, job.id).error_type == "Cancelled"


def test_a_job_that_succeeds_after_the_cancellation_starts_nothing_new(store):
    job = started_and_claimed(store, {}, {})
    store.cancel(PROJECT, job.run_id, NOW)

    complete(store, job)

    assert store.run(PROJECT, job.run_id).error_type == "run_cancelled"
    assert len(store.jobs(job.run_id)) == 1


def test_a_silent_lease_ends_a_cancelled_run(store):
    job = started_and_claimed(store, {"retry": RETRY_TWICE})
    store.cancel(PROJECT, job.run_id, NOW)

    store.expire(NOW + 30)

    assert store.run(PROJECT, job.run_id).error_type == "run_cancelled"


def test_a_released_job_of_a_cancelled_run_is_dropped(store):
    job = started_and_claimed(store)
    store.cancel(PROJECT, job.run_id, NOW)

    store.release(job, NOW)

    assert store.run(PROJECT, job.run_id).error_type == "run_cancelled"


def test_an_immediate_cancellation_takes_the_lease_away(strict_store):
    job = started_and_claimed(strict_store)

    strict_store.cancel(PROJECT, job.run_id, NOW)

    assert strict_store.run(PROJECT, job.run_id).status == "failed"
    with pytest.raises(FenceRefused):
        strict_store.heartbeat(PROJECT, job.id, fence(job), NOW)


def test_cancelling_twice_or_too_late_changes_nothing(store):
    job = started_and_claimed(store)
    store.cancel(PROJECT, job.run_id, NOW)
    store.cancel(PROJECT, job.run_id, NOW + 1)
    assert store.run(PROJECT, job.run_id).cancel_requested_at == NOW
    fail(store, job)
    ended = store.run(PROJECT, job.run_id)

    store.cancel(PROJECT, job.run_id, NOW + 2)

    assert store.run(PROJECT, job.run_id) == ended


# Steps


def test_steps_follow_in_list_order_and_hand_on_their_results(store):
    steps = (
        {"store": "page", "parameters": {"url": "${inputs.url}"}},
        {"parameters": {"whole": "${state.page.lines}", "text": "page ${state.page.number}", "plain": 7}},
    )
    job = started_and_claimed(store, *steps, inputs={"url": "x"})
    assert msgspec.json.decode(job.parameters) == {"url": "x"}

    complete(store, job, b'{"lines": [1, 2], "number": 3}')

    following = claim(store)
    assert following.step_name == "step2"
    assert msgspec.json.decode(following.parameters) == {"whole": [1, 2], "text": "page 3", "plain": 7}


def test_next_overrides_the_list_order(store):
    job = started_and_claimed(store, {"next": [{"step": "step3"}]}, {}, {}, start_at="step1")
    complete(store, job)
    third = claim(store)

    complete(store, third, b'"done"')

    assert third.step_name == "step3"
    run = store.run(PROJECT, job.run_id)
    assert (run.status, run.result) == ("completed", b'"done"')


def test_declared_outputs_are_the_result(store):
    job = started_and_claimed(store, {"store": "answer"}, outputs=[{"name": "a", "variable": "answer.value"}])

    complete(store, job, b'{"value": 42}')

    assert msgspec.json.decode(store.run(PROJECT, job.run_id).result) == {"a": 42}


def test_a_result_that_is_no_json_is_kept_as_base64(store):
    job = started_and_claimed(store, {"store": "blob"}, outputs=[{"name": "b", "variable": "blob"}])

    complete(store, job, b"\xff\x00")

    assert msgspec.json.decode(store.run(PROJECT, job.run_id).result) == {"b": "/wA="}


def test_a_reference_that_leads_nowhere_fails_the_run(store):
    job = started_and_claimed(store, {"store": "page"}, {"parameters": {"x": "${state.page.missing}"}})

    complete(store, job, b"{}")

    run = store.run(PROJECT, job.run_id)
    assert (run.status, run.error_type) == ("failed", "run_failed")
    assert "missing" in run.error_message


def test_an_output_that_leads_nowhere_fails_the_run(store):
    job = started_and_claimed(store, outputs=[{"name": "a", "variable": "nothing"}])

    complete(store, job, b"1")

    assert store.run(PROJECT, job.run_id).error_type == "run_failed"


def test_declared_inputs_have_defaults(store):
    store.start_run(PROJECT, with_declared_input(default=3), NOW)

    assert msgspec.json.decode(claim(store).parameters) == {"n": 3}


def test_a_declared_input_without_default_must_be_given(store):
    with pytest.raises(Invalid, match="missing inputs: n"):
        store.start_run(PROJECT, with_declared_input(), NOW)


def with_declared_input(**default: Any) -> RunRequest:
    step = {"name": "s", "action": "work", "parameters": {"n": "${inputs.n}"}}
    spec = {"name": "flow", "inputs": [{"name": "n", "type": "integer", **default}], "steps": [step]}
    return msgspec.convert({"spec": spec}, RunRequest)


@pytest.mark.parametrize(
    "steps",
    [
        ({"name": "same"}, {"name": "same"}),
        ({"next": [{"step": "nowhere"}]},),
        ({"parameters": {"x": "${secrets.key}"}},),
        ({"parameters": {"x": [{"y": "${state.}"}]}},),
    ],
)
def test_a_spec_that_cannot_run_is_refused(store, steps):
    with pytest.raises(Invalid):
        store.start_run(PROJECT, request(*steps), NOW)


def test_references_reach_into_lists_and_keep_types():
    scope = {"inputs": {"rows": [{"n": 1}, {"n": None}]}, "state": {}}

    assert resolve(["${inputs.rows.0.n}", {"a": "${inputs.rows.1.n}"}], scope) == [1, {"a": None}]
    assert resolve("${inputs.rows.0}!", scope) == '{"n":1}!'
    assert resolve("no reference", scope) == "no reference"


# The rest


def test_a_run_is_found_by_its_external_id(store):
    first = store.start_run(PROJECT, request(external_id="order-1"), NOW)

    second = store.start_run(PROJECT, request(external_id="order-1"), NOW)

    assert second.id == first.id
    assert store.start_run("another", request(external_id="order-1"), NOW).id != first.id


def test_runs_are_listed_newest_first_in_pages(store):
    ids = [store.start_run(PROJECT, request(), NOW).id for _ in range(3)]

    page = store.runs(PROJECT, RunFilter(limit=2))
    rest = store.runs(PROJECT, RunFilter(limit=2, cursor=page[1].number))

    assert [run.id for run in page] == ids[::-1]
    assert [run.id for run in rest] == ids[:1]


def test_a_refused_call_leaves_no_trace(store):
    job = started_and_claimed(store)
    before = store.last_seq()

    with pytest.raises(FenceRefused):
        store.publish(PROJECT, job.id, fence(job, attempt=9), [EventEntry("a", {})], NOW)

    assert store.last_seq() == before


def test_a_file_keeps_everything_over_a_restart(tmp_path):
    before = Store(tmp_path / "runs.db")
    job = started_and_claimed(before)
    before.note_worker(PROJECT, ClaimRequest("w", worker_name="box"), NOW)
    before.close()

    after = Store(tmp_path / "runs.db")

    assert after.job(PROJECT, job.id) == job
    assert after.projects() == {PROJECT}
    assert [session.name for session in after.sessions(PROJECT)] == ["box"]
    after.heartbeat(PROJECT, job.id, fence(job), NOW + 1)
    after.close()


def test_parameters_and_outputs_come_from_inputs_and_state():
    spec = request({"parameters": {"a": "${inputs.a}"}}, outputs=[{"name": "o", "variable": "state.v"}]).spec

    assert parameters_of(spec.first(), {"a": 1}, {}) == {"a": 1}
    assert outputs_of(spec, {"v": 2}) == {"o": 2}
