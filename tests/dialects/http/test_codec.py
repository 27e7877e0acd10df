"""The JSON of the protocol, read with tolerance and written to the letter."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.dialects.http import codec as schema
from supervisor.dialects.http.json_fields import MAX_TOKENS, fields_of
from supervisor.job import Blob, Directive, Event, Failed, Fence, Job, Succeeded
from supervisor.job_server import Unavailable

FENCE = Fence("worker-1", "job_1", 2)

# As the public guide and the published clients show them.
CLAIMED = b"""{
  "job_id": "job_01JQZ", "run_id": "run_01JQZ", "workflow_name": "ingest", "step_name": "fetch",
  "action": "documents.fetch", "parameters": {"url": "https://example.com", "depth": 1.0}, "attempt": 1,
  "queue": "default", "heartbeat_interval_seconds": 30
}"""
BEAT = b'{"ok": true, "directives": {"should_cancel": false}}'
ERROR = b'{"error": {"code": "fence_mismatch", "message": "the lease is held by another worker"}}'


def claimed(**changes: Any) -> Job:
    """The job in an answer like `CLAIMED`; a change to `...` leaves the field out."""
    fields = {name: value for name, value in {**json.loads(CLAIMED), **changes}.items() if value is not ...}
    return schema.claimed_job(json.dumps(fields).encode())


def test_a_claimed_job_is_read() -> None:
    assert schema.claimed_job(CLAIMED) == Job(
        job_id="job_01JQZ",
        run_id="run_01JQZ",
        workflow_name="ingest",
        step_name="fetch",
        action="documents.fetch",
        attempt=1,
        queue="default",
        parameters=b'{"url": "https://example.com", "depth": 1.0}',
        heartbeat_interval=30.0,
    )


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"job_id": ""}, "job_id is empty"),
        ({"job_id": " "}, "job_id is empty"),
        ({"job_id": "x" * 1001}, "job_id has 1001 characters, 1000 at most"),
        ({"action": ""}, "action is empty"),
        ({"action": "x" * 1001}, "action has 1001 characters, 1000 at most"),
        ({"attempt": 0}, "attempt must be 1 to 2147483647"),
        ({"attempt": -1}, "attempt must be 1 to 2147483647"),
        ({"attempt": 2**31}, "attempt must be 1 to 2147483647"),
        ({"attempt": 10**40}, "cannot be decoded|attempt must be"),
    ],
)
def test_a_claim_that_no_later_call_could_name_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(Unavailable, match=what):
        claimed(**changes)


@pytest.mark.parametrize(
    "parameters", [b"{}", b'{ "a" : 1.0 ,"b":1e3}', b'{"big": 123456789012345678901234567890}', b'{"a":1,"a":2}']
)
def test_parameters_are_passed_on_byte_for_byte(parameters: bytes) -> None:
    body = CLAIMED.replace(b'{"url": "https://example.com", "depth": 1.0}', parameters)

    assert schema.claimed_job(body).parameters == parameters


@pytest.mark.parametrize("name", ["workflow_name", "step_name", "queue", "parameters", "heartbeat_interval_seconds"])
def test_what_a_job_can_do_without_may_be_missing(name: str) -> None:
    assert claimed(**{name: ...}).job_id == "job_01JQZ"


def test_a_job_without_parameters_has_none() -> None:
    assert claimed(parameters=...).parameters == b"{}"


def test_fields_that_are_new_to_us_are_tolerated() -> None:
    assert claimed(agent_id="agent_1", agent_session_id=None, lease={"token": "x"}) == claimed()
    assert schema.directive(b'{"ok": true, "directives": {"should_cancel": true, "pause": 1}, "x": []}') is (
        Directive.CANCEL
    )
    assert schema.job_state(b'{"id": "j", "status": "claimed", "attempt": 1, "x": {}}').status == "claimed"


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("30", 30.0),
        ("0.2", 0.2),
        ("60", 60.0),
        ("61", 60.0),
        ("1e9", 60.0),
        ("9" * 400, 10.0),
        ("1e400", 10.0),
        ("-1e400", 10.0),
        ("1e-300", 0.1),
        ("0", 10.0),
        ("-0.0", 10.0),
        ("-30", 10.0),
        ("true", 10.0),
        ("null", 10.0),
        ('"30"', 10.0),
        ('"x"', 10.0),
        ("[30]", 10.0),
        ("{}", 10.0),
    ],
)
def test_an_absurd_heartbeat_interval_is_taken_for_a_sane_one(told: str, seconds: float) -> None:
    body = CLAIMED.replace(b'"heartbeat_interval_seconds": 30', b'"heartbeat_interval_seconds": ' + told.encode())

    assert schema.claimed_job(body).heartbeat_interval == seconds


def test_a_missing_heartbeat_interval_is_taken_for_ten_seconds() -> None:
    assert claimed(heartbeat_interval_seconds=...).heartbeat_interval == 10.0


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_whatever_the_interval_is_the_job_is_not_lost(told: Any) -> None:
    try:
        body = json.dumps(told, allow_nan=False).encode()
    except ValueError:
        body = b"1e999"

    assert 0.1 <= schema.bounded_interval(body) <= 60.0


NONSENSE = [b"", b"null", b"[]", b"OK", b"<html>502</html>", b'{"a":' * 100_000, b'{"ok": 1, "status": "\xff\xfe"}']


@pytest.mark.parametrize(
    "body",
    [
        *NONSENSE,
        CLAIMED[:-1],
        CLAIMED + b"}",
        b"{}",
        CLAIMED.replace(b'"attempt": 1', b'"attempt": "1"'),
        CLAIMED.replace(b'"job_id"', b'"id"'),
        CLAIMED.replace(b"job_01JQZ", b"\xff\xfe"),
        CLAIMED.replace(b"documents.fetch", b"\\ud800"),
        CLAIMED + CLAIMED,
        CLAIMED.replace(b'"queue": ', b'"\xff" '),
        CLAIMED.replace(b'"queue": "default"', b'"queue": "default'),
        b'{"parameters": [' + b"[]," * MAX_TOKENS + CLAIMED[1:],
    ],
)
def test_a_claim_that_makes_no_sense_counts_as_unanswered(body: bytes) -> None:
    with pytest.raises(Unavailable, match="cannot be decoded"):
        schema.claimed_job(body)


UNREADABLE = [
    b'{"text": "\\ud800 }]\\" "}',
    b'{"\\udfff": 1}',
    b'{"text": "\xff"}',
    b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"deep": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    b"NaN",
    b'{"a" 1}',
]


@pytest.mark.parametrize("parameters", UNREADABLE, ids=range(len(UNREADABLE)))
def test_parameters_that_nobody_can_read_do_not_hide_the_job(parameters: bytes) -> None:
    job = schema.claimed_job(CLAIMED.replace(b'{"url": "https://example.com", "depth": 1.0}', parameters))

    assert job.parameters == parameters
    assert msgspec.structs.replace(job, parameters=b"") == msgspec.structs.replace(claimed(), parameters=b"")


@pytest.mark.parametrize("name", ["workflow_name", "step_name", "queue"])
@pytest.mark.parametrize("value", [b"null", b"3", b"[]", b'"\\ud800"', b'"\xff\xfe"'])
def test_what_a_job_can_do_without_may_be_of_any_type(name: str, value: bytes) -> None:
    given = json.dumps(json.loads(CLAIMED)[name]).encode()
    body = CLAIMED.replace(b'"%s": %s' % (name.encode(), given), b'"%s": %s' % (name.encode(), value))

    assert body != CLAIMED
    assert schema.claimed_job(body) == claimed(**{name: ...})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), JSON), st.sampled_from([None, 0, 2]), st.booleans())
def test_the_outline_of_an_object_has_the_fields_that_its_parser_finds(
    value: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()

    assert {name: json.loads(field) for name, field in fields_of(body).items()} == value


@pytest.mark.parametrize("body", [*NONSENSE, b'{"ok": "yes"}', b'{"directives": {"should_cancel": "yes"}}'])
def test_a_heartbeat_answer_that_makes_no_sense_counts_as_unanswered(body: bytes) -> None:
    with pytest.raises(Unavailable, match="cannot be decoded"):
        schema.directive(body)


@pytest.mark.parametrize("body", [*NONSENSE, b"{}", b'{"status": 3}'])
def test_a_look_up_that_makes_no_sense_counts_as_unanswered(body: bytes) -> None:
    with pytest.raises(Unavailable, match="cannot be decoded"):
        schema.job_state(body)


@pytest.mark.parametrize(
    ("body", "directive"),
    [
        (BEAT, Directive.CONTINUE),
        (b'{"ok": true, "directives": {"should_cancel": true}}', Directive.CANCEL),
        (b'{"ok": true, "directives": {}}', Directive.CONTINUE),
        (b'{"ok": true, "directives": null}', Directive.CONTINUE),
        (b'{"ok": true}', Directive.CONTINUE),
        (b"{}", Directive.CONTINUE),
        (b'{"ok": false}', None),
        (b'{"ok": false, "directives": {"should_cancel": true}}', None),
    ],
)
def test_the_answer_to_a_heartbeat(body: bytes, directive: Directive | None) -> None:
    assert schema.directive(body) is directive


@pytest.mark.parametrize(
    ("state", "settled"),
    [
        ({"status": "completed", "attempt": 2, "claimed_by": "worker-1"}, True),
        ({"status": "failed", "attempt": 2, "claimed_by": "worker-1"}, True),
        ({"status": "completed", "attempt": 2}, True),
        ({"status": "completed", "attempt": 2, "claimed_by": None}, True),
        ({"status": "claimed", "attempt": 2, "claimed_by": "worker-1"}, False),
        ({"status": "pending", "attempt": 2}, False),
        ({"status": "completed", "attempt": 3, "claimed_by": "worker-1"}, False),
        ({"status": "completed", "attempt": 2, "claimed_by": "worker-2"}, False),
        ({"status": "completed"}, False),
    ],
)
def test_a_look_up_tells_whether_our_very_attempt_was_reported(state: dict[str, Any], settled: bool) -> None:
    assert schema.job_state(json.dumps(state).encode()).is_settled_by(FENCE) is settled


@pytest.mark.parametrize(("wait", "told"), [(20.0, 20), (0.0, 0), (-1.0, 0), (29.6, 30), (3600.0, 30)])
def test_a_claim_waits_within_what_the_protocol_allows(wait: float, told: int) -> None:
    body = schema.claim_request("w", ("default",), ("a", "b"), wait, name="host", version="1.0")

    assert json.loads(body) == {
        "worker_id": "w",
        "queues": ["default"],
        "actions": ["a", "b"],
        "wait_seconds": told,
        "worker_name": "host",
        "worker_version": "1.0",
    }


def test_no_queue_means_any_queue() -> None:
    assert "queues" not in json.loads(schema.claim_request("w", (), ("a",), 0, name="", version=""))


def test_a_heartbeat_says_the_fence_and_nothing_else() -> None:
    assert json.loads(schema.fence_request(FENCE)) == {"worker_id": "worker-1", "attempt": 2}


def test_payloads_are_passed_on_byte_for_byte() -> None:
    payloads = [b'{"page":1}', b'{"ratio":1.0,"text":"\xc3\xa4\\u00e4"}']

    body = schema.events_request(FENCE, [Event("progress", payload) for payload in payloads])

    assert json.loads(body) == {
        "worker_id": "worker-1",
        "attempt": 2,
        "events": [{"type": "progress", "payload": json.loads(payload)} for payload in payloads],
    }
    assert all(payload in body for payload in payloads)


def test_a_failure_is_reported_with_its_type_and_message() -> None:
    head, blob, tail = schema.complete_request(FENCE, Failed("ValueError", 'no "page" ä'))

    assert (blob, tail) == (None, b"")
    assert json.loads(head) == {
        "worker_id": "worker-1",
        "attempt": 2,
        "status": "failed",
        "error_type": "ValueError",
        "error_message": 'no "page" ä',
    }


def test_no_result_is_no_field() -> None:
    head, blob, tail = schema.complete_request(FENCE, Succeeded(None))

    assert (blob, tail) == (None, b"")
    assert json.loads(head) == {"worker_id": "worker-1", "attempt": 2, "status": "completed"}


@given(st.binary())
def test_a_result_arrives_as_the_bytes_it_was(result: bytes) -> None:
    head, blob, tail = schema.complete_request(FENCE, Succeeded(base64.b64encode(result)))

    told = json.loads(head)
    assert (blob, tail) == (None, b"")
    assert base64.b64decode(told.pop("result_b64"), validate=True) == result
    assert told == {"worker_id": "worker-1", "attempt": 2, "status": "completed"}


def test_a_big_result_stands_between_two_halves_of_a_body() -> None:
    descriptor = os.memfd_create("result")
    blob = Blob(descriptor, os.write(descriptor, b"e30="))

    head, middle, tail = schema.complete_request(FENCE, Succeeded(blob))

    assert middle is blob
    assert json.loads(head + b"e30=" + tail) == {
        "worker_id": "worker-1",
        "attempt": 2,
        "status": "completed",
        "result_b64": "e30=",
    }
    blob.close()


@pytest.mark.parametrize(
    ("beat", "deadline", "length"),
    [
        ("2026-04-01T12:00:00Z", "2026-04-01T12:00:30Z", 30.0),
        ("2026-04-01T12:00:00Z", "2026-04-01T12:00:00.001Z", 3 * schema.MIN_HEARTBEAT_INTERVAL),
        ("2026-04-01T12:00:00Z", "2026-04-01T12:00:00Z", None),
        ("2026-04-01T12:00:00", "2026-04-01T12:00:30Z", None),
    ],
)
def test_a_lease_is_as_long_as_the_server_says_where_that_makes_sense(
    beat: str, deadline: str, length: float | None
) -> None:
    told = {"status": "claimed", "attempt": 1, "heartbeat_at": beat, "liveness_deadline_at": deadline}

    assert schema.job_state(json.dumps(told).encode()).lease_length == length


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (ERROR, "fence_mismatch: the lease is held by another worker"),
        (b"", ""),
        (b"Bad Gateway", "Bad Gateway"),
        (b'{"error": "plain"}', '{"error": "plain"}'),
        (b'{"error": {"code": "x"}}', '{"error": {"code": "x"}}'),
        (b"[1]", "[1]"),
        (b"null", "null"),
        (b"\xff" * 3, "\ufffd" * 3),
        (b"x" * 10_000, "x" * 200),
        (b'{"error": {"code": "x", "message": "' + b"y" * 10_000 + b'"}}', "x: " + "y" * 197),
    ],
)
def test_what_an_error_says_is_shown_whatever_it_is(body: bytes, text: str) -> None:
    assert schema.error_text(body) == text


def test_an_error_that_is_nested_without_end_is_shown_as_well() -> None:
    assert schema.error_text(b"[" * 100_000) == "[" * 200


@given(st.text(max_size=50))
def test_any_text_in_a_report_is_sent_as_valid_json(text: str) -> None:
    head, _, _ = schema.complete_request(FENCE, Failed(text, text))

    assert msgspec.json.decode(head)["error_message"] == text
