"""Whether the program is well, and whether it takes jobs, judged by what it says of itself.  Pure.

Each question is answered with the reason why not, or None.
"""

from __future__ import annotations

from supervisor.duration import format_duration
from supervisor.status import Status

MOST_LAG = 2.0
"""Seconds that the loop may be late."""
LONGEST_CALL = 60.0
"""Seconds after which another claim is made, whatever becomes of one: the longest poll and the longest backoff."""


def illness(status: Status) -> str | None:
    """Why the program should be restarted."""
    if status.loop_lag > MOST_LAG:
        return f"the event loop was {status.loop_lag:.1f} s late"
    late = [slot.job.job_id for slot in status.slots if slot.job and slot.job.beat_overdue]
    if late:
        return f"no heartbeat is sent for {', '.join(late)}"
    if _claims_stand_still(status):
        return f"no claim was made for {_length(status.claims.last_call_age)} though a child is free"
    return None


def unreadiness(status: Status) -> str | None:
    """Why no job can be expected to be taken."""
    if status.state != "serving":
        return status.state
    if all(slot.state in ("none", "starting") for slot in status.slots):
        return "no child is up"
    age = status.claims.last_answer_age
    if age is not None and age > LONGEST_CALL and _has_room(status):
        return f"no claim was answered for {_length(age)}: {status.claims.reason or 'no reason is known'}"
    return illness(status)


def _claims_stand_still(status: Status) -> bool:
    claims = status.claims
    may_claim = status.state == "serving" and claims.open_polls == 0 and claims.reason is None and _has_room(status)
    return may_claim and claims.last_call_age is not None and claims.last_call_age > LONGEST_CALL


def _has_room(status: Status) -> bool:
    return any(slot.state == "idle" and slot.job is None for slot in status.slots)


def _length(seconds: float | None) -> str:
    return format_duration(round(seconds or 0.0))
