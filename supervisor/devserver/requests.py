"""Request bodies, one struct each.  Pure; unknown fields are refused.  Tested by tests/devserver/test_app.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from supervisor.devserver.spec import Spec

MAX_EVENTS = 100
MAX_PAYLOAD = 16 * 1024

Text = Annotated[str, msgspec.Meta(min_length=1)]
Attempt = Annotated[int, msgspec.Meta(ge=1)]
# Types that begin with `mobius.` are reserved for the server.
EventType = Annotated[str, msgspec.Meta(pattern=r"\A(?!mobius\.)[a-zA-Z0-9_.-]{1,64}\Z")]


class ClaimRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Claims a job; missing or empty `queues` and `actions` mean any."""

    worker_id: Text
    queues: tuple[Text, ...] | None = None
    actions: tuple[Text, ...] | None = None
    wait_seconds: Annotated[int, msgspec.Meta(ge=0, le=30)] | None = None
    worker_name: str | None = None
    worker_version: str | None = None
    agent_id: str | None = None
    agent_session_id: str | None = None


class FenceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Identifies the attempt of a call; also the body of a heartbeat."""

    worker_id: Text
    attempt: Attempt


class EventEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event of a handler."""

    type: EventType
    payload: dict[str, Any]


class EventsRequest(FenceRequest, frozen=True, forbid_unknown_fields=True):
    """Publishes events, all or none."""

    events: Annotated[list[EventEntry], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)]


class CompleteRequest(FenceRequest, frozen=True, forbid_unknown_fields=True):
    """Reports the outcome of an attempt; `result_b64` is base64 in JSON and bytes here."""

    status: Literal["completed", "failed"]
    result_b64: bytes | None = None
    error_type: str | None = None
    error_message: str | None = None


class RunRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Starts a run of the given spec; older clients send no `mode`.

    `config` overrides the hosted service's timeouts; it is accepted and has no effect here.
    """

    spec: Spec
    mode: Literal["inline"] = "inline"
    queue: Text | None = None
    inputs: dict[str, Any] = {}
    metadata: dict[str, str] | None = None
    tags: dict[str, str] | None = None
    external_id: Text | None = None
    config: list[dict[str, str]] | None = None


class RunFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Filter for the list of runs, from the query string."""

    status: Literal["active", "completed", "failed"] | None = None
    workflow_type: str | None = None
    queue: str | None = None
    external_id: str | None = None
    cursor: Annotated[int, msgspec.Meta(ge=1)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
