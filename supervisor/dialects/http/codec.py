"""JSON of the worker protocol to nouns and back.  Pure; the only place that knows field names.

Fields it does not know are tolerated in answers and never sent in requests.  What a job is given and what it returns
is passed on as raw bytes, never decoded here.
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
"""Seconds between heartbeats when the server names none, or none that makes sense."""
MAX_HEARTBEAT_INTERVAL = 60.0
"""Seconds.  A longer interval is taken for this: a cancel is told with a heartbeat only."""
MIN_HEARTBEAT_INTERVAL = 0.1
"""Seconds.  A shorter interval is taken for this: it would be nothing but heartbeats."""
MAX_ATTEMPT = 2**31 - 1
"""An attempt beyond this is a slip: the number must fit in a message to the child."""
MAX_ID_LENGTH = 1000
"""Characters of an id or action; longer ones fit in no address and no log."""
MAX_WAIT_SECONDS = 30
"""Seconds that a claim may wait, by the protocol."""

MAX_ERROR_TEXT_CHARS = 200
"""Characters of what a server says that are worth a place in the log."""


class _Claimed(msgspec.Struct):
    job_id: str
    run_id: str
    action: str
    attempt: int
    workflow_name: str = ""
    step_name: str = ""
    queue: str = ""
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    # Raw: an interval of the wrong type, or too long a number, must not cost the job.
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
    """An object, whatever is in it."""


class _Error(msgspec.Struct):
    code: str
    message: str


class _ErrorBody(msgspec.Struct):
    error: _Error


class JobState(msgspec.Struct):
    """What the server tells of a job that is looked up."""

    status: str
    attempt: int = 0
    claimed_by: str | None = None
    heartbeat_at: datetime | None = None
    liveness_deadline_at: datetime | None = None

    @property
    def lease_length(self) -> float | None:
        """Seconds; both times are of the server's clock, so that ours does not matter.

        Never so few that three heartbeats at the shortest interval do not fit in.
        """
        if self.heartbeat_at is None or self.liveness_deadline_at is None:
            return None
        try:
            length = (self.liveness_deadline_at - self.heartbeat_at).total_seconds()
        except TypeError:  # one of them has a time zone, the other has none
            return None
        return max(length, 3 * MIN_HEARTBEAT_INTERVAL) if length > 0 else None

    def is_settled_by(self, fence: Fence) -> bool:
        """Whether this very attempt was reported: the answer to a report that went unanswered."""
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


@lru_cache(maxsize=16)  # the same ones again and again
def claim_request(
    worker_id: str, queues: tuple[str, ...], actions: tuple[str, ...], wait: float, *, name: str, version: str
) -> bytes:
    """The body of a claim; no `queues` means any queue of the project."""
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
    """The job in the answer to a claim; raise `Unavailable` when the answer makes no sense.

    When `body` is but the outline of the answer `take` gives the file that holds all of it, for the job to own.

    Parameters that nobody can read are the child's to refuse, which is reported; a claim that we refused would come
    back for ever.
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
        heartbeat_interval=sane_interval(claimed.heartbeat_interval_seconds),
    )


def _refuse_malformed(claimed: _Claimed) -> None:
    """Raise `Unavailable` for a claim that no later call could name."""
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
    except msgspec.MsgspecError:  # it was something else that made the answer long
        return bytes(given)
    return Blob(take(), end - start, start)


def _salvaged(body: bytes) -> _Claimed | None:
    """What can be read of a claim, field by field; None when that is too little to run a job."""
    try:
        given = fields_of(body)
    except NotAnObject:
        return None
    told: dict[str, Any] = {}
    for field in msgspec.structs.fields(_Claimed):
        if field.name in given:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                told[field.name] = _value(given[field.name], field.type)
        if field.required and field.name not in told:
            return None
    return _Claimed(**told)


def _value(given: bytes, type_: Any) -> Any:
    return msgspec.Raw(given) if type_ is msgspec.Raw else msgspec.json.decode(given, type=type_)


def sane_interval(told: bytes | msgspec.Raw) -> float:
    """Seconds between heartbeats, from whatever JSON the server said."""
    try:
        interval: float = _number.decode(told)
    except msgspec.MsgspecError:
        return DEFAULT_HEARTBEAT_INTERVAL
    if interval <= 0:
        return DEFAULT_HEARTBEAT_INTERVAL
    return max(MIN_HEARTBEAT_INTERVAL, min(interval, MAX_HEARTBEAT_INTERVAL))


def fence_request(fence: Fence) -> bytes:
    """The body of a heartbeat."""
    return _encode({"worker_id": fence.worker_id, "attempt": fence.attempt})


def directive(body: bytes) -> Directive | None:
    """What the answer to a heartbeat asks for; None when it says `ok: false`, which counts as refused."""
    beat: _Beat = _decode(_beat, body)
    if not beat.ok:
        return None
    return Directive.CANCEL if beat.directives and beat.directives.should_cancel else Directive.CONTINUE


def events_request(fence: Fence, events: Sequence[Event]) -> bytes:
    """The body of an events call."""
    sent = [_SentEvent(event.type, msgspec.Raw(event.payload)) for event in events]
    return _encode(_FencedEvents(fence.worker_id, fence.attempt, sent))


def complete_request(fence: Fence, outcome: Outcome) -> tuple[bytes, Blob | None, bytes]:
    """The body of a complete, in up to three parts: the middle one is there when the result is too big to be held."""
    match outcome:
        case Failed(error_type, message):
            return _encode(_Failed(fence.worker_id, fence.attempt, error_type, message)), None, b""
        case Succeeded(result):
            report = _encode(_Completed(fence.worker_id, fence.attempt))
            if result is None:
                return report, None, b""
            # base64 needs no escaping, so the result is put in as it is, never parsed.
            head = report[:-1] + b',"result_b64":"'
            return (head, result, b'"}') if isinstance(result, Blob) else (head + result + b'"}', None, b"")


def job_state(body: bytes) -> JobState:
    """The answer to a look-up."""
    state: JobState = _decode(_job_state, body)
    return state


def is_object(body: bytes) -> bool:
    """Whether an answer that need not say anything is one of this protocol at least."""
    try:
        _decode(_anything, body)
    except Unavailable:
        return False
    return True


def is_own_error(content_type: str, body: bytes) -> bool:
    """Whether an error answer has the job server's own form: `{"error": {"code": "...", "message": "..."}}`, as JSON.

    A gateway's page, or an empty body, must not count as the server's word.
    """
    if "json" not in content_type.lower():
        return False
    try:
        _error.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def error_text(body: bytes) -> str:
    """What an error answer says, for the log: its code and message, or the beginning of whatever it is."""
    try:
        error = msgspec.json.decode(body)["error"]
        return f"{error['code']}: {error['message']}"[:MAX_ERROR_TEXT_CHARS]
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, KeyError, RecursionError):
        return body[:MAX_ERROR_TEXT_CHARS].decode("utf-8", "replace")


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unavailable(f"the answer makes no sense: {error}") from error
