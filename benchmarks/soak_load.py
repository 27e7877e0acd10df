"""What the soak asks for, and what it lets go wrong: jobs and faults, both from a seed.  Pure."""

from __future__ import annotations

import random
import signal
from typing import Any

AGAIN = [{"error_equals": ["ChildDied", "SupervisorError"], "max_retries": 9, "base_delay": "50ms"}]
"""What a job is tried again for, besides leases that run out."""

_WEIGHTS = {"result": 40, "events": 12, "failure": 8, "sleep": 12, "big": 4, "timeout": 3, "deaf": 2, "daemon": 5}
_CRASHES = (signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT)
_CRASHERS = 30


def next_job(dice: random.Random, number: int, tickets: str) -> dict[str, Any]:
    """The spec of one more run."""
    kind = dice.choices([*_WEIGHTS, "crash"], [*_WEIGHTS.values(), 5])[0]
    action = f"soak-crash-{dice.randrange(_CRASHERS)}" if kind == "crash" else f"soak-{kind}"
    parameters = {**_parameters(dice, kind, number), **({} if kind in ("timeout", "deaf") else {"tickets": tickets})}
    step = {"name": "only", "action": action, "parameters": parameters, "retry": AGAIN}
    return {"name": kind, "steps": [step]}


def _parameters(dice: random.Random, kind: str, number: int) -> dict[str, Any]:
    match kind:
        case "result":
            return {"number": number}
        case "events":
            return {"count": dice.choice((1, 10, 150))}
        case "big":
            return {"size": dice.choice((64 * 1024, 1536 * 1024, 4096 * 1024))}
        case "sleep":
            return {"seconds": round(dice.uniform(0.1, 3.0), 1)}
        case "crash":
            return {"number": int(dice.choice(_CRASHES))}
    return {}


def fault_script(seed: int, *, patient: bool) -> dict[str, Any]:
    """Everything that a server can do to a worker and that must cost no result; `patient` includes what takes long."""
    faults = [fault | {"call": call} for call in ("claim", *_ABOUT_JOBS) for fault in _ANYWHERE]
    faults += [fault | {"call": call} for call in _ABOUT_JOBS for fault in _UNREADABLE]
    faults += _on("hang", 0.02, "heartbeat")
    faults += _on("lose_answer", 0.01, *_ABOUT_JOBS)
    faults += _on("expire_lease", 0.004, "heartbeat", "complete", "claim")
    faults += _on("cancel", 0.005, "heartbeat", "claim")
    faults += _on("duplicate_claim", 0.01, "claim")
    if patient:
        faults += _on("hang", 0.001, "events", "complete") + _on("lose_answer", 0.002, "claim")
        faults += [fault | {"call": "claim"} for fault in _UNREADABLE]  # the job waits for the end of its lease
    return {"seed": seed, "faults": faults}


def _on(what: str, probability: float, *calls: str) -> list[dict[str, Any]]:
    return [{"what": what, "call": call, "probability": probability} for call in calls]


_ABOUT_JOBS = ("heartbeat", "events", "complete")
_ANYWHERE: tuple[dict[str, Any], ...] = (
    {"what": "status", "status": 503, "probability": 0.01},
    {"what": "status", "status": 500, "body": "<html>", "probability": 0.005},
    {"what": "status", "status": 429, "retry_after": 1, "probability": 0.002},
    {"what": "status", "status": 429, "retry_date": 1, "probability": 0.002},
    {"what": "delay", "seconds": 0.3, "probability": 0.01},
    {"what": "hang_up", "probability": 0.01},
    {"what": "extra_fields", "probability": 0.02},
    {"what": "oversized", "bytes": 1_100_000, "probability": 0.002},
    {"what": "slow", "seconds": 0.002, "probability": 0.005},
)
_UNREADABLE: tuple[dict[str, Any], ...] = (
    {"what": "reset", "bytes": 40, "probability": 0.002},
    {"what": "truncate", "bytes": 3, "probability": 0.002},
    {"what": "garbage", "probability": 0.002},
    {"what": "garbage", "of": "http", "probability": 0.002},
    {"what": "wrong_type", "probability": 0.002},
)
