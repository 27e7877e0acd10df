"""A queue that goes away while a job ends, a job that crashes, one that takes all memory, one that takes long."""

from __future__ import annotations

import time

from benchmarks.beacon import Beacon
from benchmarks.comparison.mobius import Mobius
from benchmarks.comparison.session import LEASE_TTL, Session, until

AWAY = 3.0
"""Seconds for which the queue stays away after the job is over."""
OTHERS = 3
LIMIT, WANTED = 200, 600
"""MiB."""
SPINNING = 8


def outage(session: Session, told: Beacon) -> dict[str, float | str]:
    """The queue is away from the middle of a job until some time after its end."""
    return _outage(session, told, "queue away when a job ends", kills=False)


def outage_and_kill(session: Session, told: Beacon) -> dict[str, float | str]:
    """The same, and the worker is killed meanwhile and started again."""
    return _outage(session, told, "the same, and the worker SIGKILLed", kills=True)


def _outage(session: Session, told: Beacon, what: str, *, kills: bool) -> dict[str, float | str]:
    """Without Celery: see RESULTS.md for why it has no figures here."""
    if not isinstance(session, Mobius):
        return {}
    session.start_worker(1)
    ticket = session.submit("work", beacon=told.path, seconds=3.0)
    assert told.receive() == b"began"
    time.sleep(1)
    session.stop_queue()
    assert told.receive() == b"ended"
    time.sleep(AWAY)
    if kills:
        session.kill_worker()
    session.start_queue()
    back_at = time.monotonic()
    if kills:
        session.start_worker(1)
    until(lambda: session.outcome(ticket), 3.0 * LEASE_TTL)
    settled_after = time.monotonic() - back_at
    outcome = session.outcome(ticket)
    again = 0
    while (said := told.hear_within(0.1)) is not None:
        again += said == "began"
    return {
        f"{what}: it is back → the job is completed (s)": settled_after
        if outcome == "completed"
        else outcome or "never",
        f"{what}: times the handler ran": 1.0 + again,
    }


def crash(session: Session, told: Beacon) -> dict[str, float | str]:
    """One job of several that run has a segmentation fault."""
    session.start_worker(OTHERS + 1)
    others = [session.submit("work", beacon=told.path, seconds=4.0) for _ in range(OTHERS)]
    for _ in others:
        told.receive()
    ticket = session.submit("segfault", beacon=told.path)
    until(lambda: all(map(session.outcome, others)), 10.0)
    done = sum(session.outcome(other) == "completed" for other in others)
    until(lambda: session.outcome(ticket), LEASE_TTL + 10.0)
    return {
        "a handler segfaults: it is reported as": session.outcome(ticket) or "nothing",
        f"a handler segfaults: of {OTHERS} jobs beside it are completed": float(done),
        "a handler segfaults: the worker": "goes on" if session.worker.poll() is None else "is dead",
    }


def growth(session: Session, told: Beacon) -> dict[str, float | str]:
    """One job wants three times the memory that jobs may have."""
    session.start_worker(1, memory=LIMIT)
    ticket = session.submit("grow", beacon=told.path, mebibytes=WANTED)
    taken = 0.0
    while (said := told.hear_within(10.0)) not in (None, "ended"):
        taken = float(said)
    until(lambda: session.outcome(ticket))
    return {
        f"a job takes {WANTED} MiB, the limit is {LIMIT}: it gets (MiB)": taken,
        f"a job takes {WANTED} MiB, the limit is {LIMIT}: it ends as": session.outcome(ticket),
    }


def long_jobs(session: Session, told: Beacon) -> dict[str, float | str]:
    """All slots compute for longer than the queue waits for a sign of life."""
    if not isinstance(session, Mobius):
        return {}
    session.start_worker(SPINNING)
    seconds = 1.5 * LEASE_TTL
    tickets = [session.submit("compute", beacon=told.path, seconds=seconds) for _ in range(SPINNING)]
    began = 0
    while told.hear_within(seconds + 10.0) is not None:
        began += 1
    assert all(map(session.outcome, tickets))
    return {f"{SPINNING} jobs compute for {seconds:g} s, the lease is {LEASE_TTL} s: times they ran": float(began)}
