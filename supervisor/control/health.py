"""Liveness and readiness, decided from the status.  Pure.

Each function returns the reason for a failure, or None.
"""

from __future__ import annotations

from supervisor.status import Status
from supervisor.text.duration import format_duration

MAX_LOOP_LAG = 2.0
"""Seconds of event-loop lag beyond which the program counts as ill."""
MAX_SERVER_SILENCE = 60.0
"""Seconds within which the server answers some claim: the longest poll plus the longest backoff."""


def illness(status: Status) -> str | None:
    """Return why the program should be restarted."""
    if status.loop_lag > MAX_LOOP_LAG:
        return f"the event loop was {status.loop_lag:.1f} s late"
    return status.standstill  # systemd's watchdog is not notified in this case, either


def unreadiness(status: Status) -> str | None:
    """Return why the program is not expected to claim jobs."""
    if status.state != "serving":
        return status.state
    if status.code.outage is not None:
        return f"no child can be started: {status.code.outage}"
    if status.shortage is not None:
        return f"slots cannot have a child: {status.shortage}"
    if all(slot.state in ("none", "starting") for slot in status.slots):
        return "no child is up"
    if status.claims.blocked_by:
        return status.claims.reason
    if status.claims.is_quarantined:
        return status.claims.reason
    return _silence(status) or illness(status)


def _silence(status: Status) -> str | None:
    age = status.claims.last_answer_age
    if not _should_claim(status) or (age is not None and age <= MAX_SERVER_SILENCE):
        return None
    since = "yet" if age is None else f"for {format_duration(round(age))}"
    return f"no claim was answered {since}: {status.claims.reason or 'no reason is known'}"


def _should_claim(status: Status) -> bool:
    return not status.claims.is_full and any(slot.state == "idle" and slot.job is None for slot in status.slots)
