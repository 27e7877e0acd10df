"""Conversion between the JSON of the worker protocol and the types of `job`.  Pure; only this module knows field names.

Unknown fields in answers are ignored.  Parameters and results are passed on as raw bytes, never decoded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from supervisor.dialects.http.json_fields import NotAnObject, fields_of
from supervisor.job import Blob, Directive, Event, Failed, Fence, Job, Outcome, Succeeded
from supervisor.job_server import Unavailable

DEFAULT_HEARTBEAT_INTERVAL = 10.0
"""Seconds between heartbeats when the server gives no valid interval."""
MAX_HEARTBEAT_INTERVAL = 60.0
"""Upper bound in seconds, because only heartbeats deliver a cancel."""
MIN_HEARTBEAT_INTERVAL = 0.1
"""Lower bound in seconds, to limit the number of heartbeats."""
MAX_ATTEMPT = 2**31 - 1
"""Largest valid attempt: the number must fit in a message to the child."""
MAX_ID_LENGTH = 1000
"""Characters of an id or action; longer ones do not fit in a URL or a log."""
MAX_WAIT_SECONDS = 30
"""Limit of the protocol for the wait of a claim."""

MAX_ERROR_TEXT_CHARS = 200
"""Characters of a server's error message that are logged."""


class _Claimed(msgspec.Struct):
    job_id: str
    run_id: str
    action: str
    attempt: int
    workflow_name: str = ""
    step_name: str = ""
    queue: str = ""
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    # Raw: an interval of the wrong type, or with too many digits, must not lose the job.
    heartbeat_interval_seconds: msgspec.Raw = msgspec.Raw(b"null")


class _Completed(msgspec.Struct):
    worker_id: str
    attempt: int
    status: str = "completed"


class _Failed(msgspec.Struct):
    worker_id: str
    attempt: int
    error_type: str
    error_message: str
    status: str = "failed"


class _Directives(msgspec.Struct):
    should_cancel: bool = False


class _Beat(msgspec.Struct):
    ok: bool = True
    directives: _Directives | None = None


class _FencedEvents(msgspec.Struct):
    worker_id: str
    attempt: int
    events: list[_SentEvent]


class _SentEvent(msgspec.Struct):
    type: str
    payload: msgspec.Raw


class _Anything(msgspec.Struct):
    """Any JSON object."""


class _Error(msgspec.Struct):
    code: str
    message: str


class _ErrorBody(msgspec.Struct):
    error: _Error


class JobState(msgspec.Struct):
    """The server's state of a job."""

    status: str
    attempt: int = 0
    claimed_by: str | None = None
    heartbeat_at: datetime | None = None
    liveness_deadline_at: datetime | None = None

    @property
    def lease_length(self) -> float | None:
        """Seconds between both times, which are of the server's clock; None if unknown.

        At least three times the shortest heartbeat interval.
        """
        if self.heartbeat_at is None or self.liveness_deadline_at is None:
            return None
        try:
            length = (self.liveness_deadline_at - self.heartbeat_at).total_seconds()
        except TypeError:  # one of them has a time zone, the other has none
            return None
        return max(length, 3 * MIN_HEARTBEAT_INTERVAL) if length > 0 else None

    def is_settled_by(self, fence: Fence) -> bool:
        """True if the server has a report of this attempt."""
        ours = self.claimed_by in (None, fence.worker_id) and self.attempt == fence.attempt
        return ours and self.status in ("completed", "failed")


_encode = msgspec.json.Encoder().encode
_claimed = msgspec.json.Decoder(_Claimed)
_place = msgspec.json.Decoder(tuple[int, int])
_number = msgspec.json.Decoder(float)
_beat = msgspec.json.Decoder(_Beat)
_job_state = msgspec.json.Decoder(JobState)
_error = msgspec.json.Decoder(_ErrorBody)
_anything = msgspec.json.Decoder(_Anything)


@lru_cache(maxsize=16)  # the arguments rarely change
def claim_request(
    worker_id: str, queues: tuple[str, ...], actions: tuple[str, ...], wait: float, *, name: str, version: str
) -> bytes:
    """Return the body of a claim.  Empty `queues` means any queue of the project."""
    request: dict[str, Any] = {
        "worker_id": worker_id,
        "worker_name": name,
        "worker_version": version,
        "actions": actions,
        "wait_seconds": max(0, min(MAX_WAIT_SECONDS, round(wait))),
    }
    if queues:
        request["queues"] = queues
    return _encode(request)


def claimed_job(body: bytes, take: Callable[[], int] | None = None) -> Job:
    """Return the job in the answer to a claim; raise `Unavailable` when the answer is invalid.

    If the answer is in a file, `body` is only its outline, and `take` returns the file, which the job owns from now on.

    Invalid parameters are passed on: the child refuses them, and the failure is reported.  If the parent refused the
    claim here, the server would hand out the same job again and again.
    """
    try:
        claimed: _Claimed = _decode(_claimed, body)
    except Unavailable:
        salvaged = _salvaged(body)
        if salvaged is None:
            raise
        claimed = salvaged
    _refuse_malformed(claimed)
    return Job(
        job_id=claimed.job_id,
        run_id=claimed.run_id,
        workflow_name=claimed.workflow_name,
        step_name=claimed.step_name,
        action=claimed.action,
        attempt=claimed.attempt,
        queue=claimed.queue,
        parameters=_parameters(claimed.parameters, take),
        heartbeat_interval=bounded_interval(claimed.heartbeat_interval_seconds),
    )


def _refuse_malformed(claimed: _Claimed) -> None:
    """Raise `Unavailable` for a claim whose ids cannot be used in later calls."""
    for name in ("job_id", "action"):
        text = getattr(claimed, name)
        if not text.strip():
            raise Unavailable(f"the claim is malformed: {name} is empty")
        if len(text) > MAX_ID_LENGTH:
            raise Unavailable(f"the claim is malformed: {name} has {len(text)} characters, {MAX_ID_LENGTH} at most")
    if not 1 <= claimed.attempt <= MAX_ATTEMPT:
        raise Unavailable(f"the claim is malformed: attempt must be 1 to {MAX_ATTEMPT}")


def _parameters(given: msgspec.Raw, take: Callable[[], int] | None) -> bytes | Blob:
    if take is None:
        return bytes(given)
    try:
        start, end = _place.decode(given)
    except msgspec.MsgspecError:  # the parameters are small; another field made the answer large
        return bytes(given)
    return Blob(take(), end - start, start)


def _salvaged(body: bytes) -> _Claimed | None:
    """Decode a broken claim field by field; return None when a required field is missing."""
    try:
        given = fields_of(body)
    except NotAnObject:
        return None
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(_Claimed):
        if field.name in given:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                values[field.name] = _value(given[field.name], field.type)
        if field.required and field.name not in values:
            return None
    return _Claimed(**values)


def _value(given: bytes, type_: Any) -> Any:
    return msgspec.Raw(given) if type_ is msgspec.Raw else msgspec.json.decode(given, type=type_)


def bounded_interval(given: bytes | msgspec.Raw) -> float:
    """Return the seconds between heartbeats, from any JSON value of the server."""
    try:
        interval: float = _number.decode(given)
    except msgspec.MsgspecError:
        return DEFAULT_HEARTBEAT_INTERVAL
    if interval <= 0:
        return DEFAULT_HEARTBEAT_INTERVAL
    return max(MIN_HEARTBEAT_INTERVAL, min(interval, MAX_HEARTBEAT_INTERVAL))


def fence_request(fence: Fence) -> bytes:
    """Return the body of a heartbeat."""
    return _encode({"worker_id": fence.worker_id, "attempt": fence.attempt})


def directive(body: bytes) -> Directive | None:
    """Return the directive in the answer to a heartbeat; None for `ok: false`, which means refused."""
    beat: _Beat = _decode(_beat, body)
    if not beat.ok:
        return None
    return Directive.CANCEL if beat.directives and beat.directives.should_cancel else Directive.CONTINUE


def events_request(fence: Fence, events: Sequence[Event]) -> bytes:
    """Return the body of an events call."""
    sent = [_SentEvent(event.type, msgspec.Raw(event.payload)) for event in events]
    return _encode(_FencedEvents(fence.worker_id, fence.attempt, sent))


def complete_request(fence: Fence, outcome: Outcome) -> tuple[bytes, Blob | None, bytes]:
    """Return the body of a complete call in three parts: head, large result (or None), tail."""
    match outcome:
        case Failed(error_type, message):
            return _encode(_Failed(fence.worker_id, fence.attempt, error_type, message)), None, b""
        case Succeeded(result):
            report = _encode(_Completed(fence.worker_id, fence.attempt))
            if result is None:
                return report, None, b""
            # base64 needs no escaping, so the result is inserted without parsing.
            head = report[:-1] + b',"result_b64":"'
            return (head, result, b'"}') if isinstance(result, Blob) else (head + result + b'"}', None, b"")


def job_state(body: bytes) -> JobState:
    """Decode the answer to a job look-up."""
    state: JobState = _decode(_job_state, body)
    return state


def is_object(body: bytes) -> bool:
    """True if the body is a JSON object, as all answers of this protocol are."""
    try:
        _decode(_anything, body)
    except Unavailable:
        return False
    return True


def is_own_error(content_type: str, body: bytes) -> bool:
    """True if an error answer has the job server's format: `{"error": {"code": "...", "message": "..."}}`, as JSON.

    The page of a gateway, or an empty body, must not count as an answer of the job server.
    """
    if "json" not in content_type.lower():
        return False
    try:
        _error.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def error_text(body: bytes) -> str:
    """Return the code and message of an error answer for the log, or else the beginning of its body."""
    try:
        error = msgspec.json.decode(body)["error"]
        return f"{error['code']}: {error['message']}"[:MAX_ERROR_TEXT_CHARS]
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, KeyError, RecursionError):
        return body[:MAX_ERROR_TEXT_CHARS].decode("utf-8", "replace")


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unavailable(f"the answer cannot be decoded: {error}") from error
