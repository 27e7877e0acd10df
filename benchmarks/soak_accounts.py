"""Whether anything was lost: the tickets that handlers left, against the records of the server.  Reads only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LEEWAY = 1.0
"""Seconds by which the time of a file and that of a signal may differ."""
UNKEPT = 4.0
"""Seconds from a ticket until the outcome is on disk at the latest: the half that the supervisor was told, the two for
which it may be stopped meanwhile, and what a busy machine takes."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """How the attempts whose handler finished were settled.

    `reported` ones were accepted by the server.  The server itself had ended those that are `cancelled` or `expired`.
    `killed` ones ran out because the supervisor that had them was killed before it had reported or kept them.  All
    others are lost.
    """

    jobs: int
    stuck: int
    finished: int
    reported: int
    ended_by_server: int
    killed: int
    lost: tuple[str, ...]


def settle(database: Path, tickets: Path, expired_by_fault: set[str], killed_at: Sequence[float]) -> Accounts:
    """The accounts; `killed_at` is when the supervisor was killed, `expired_by_fault` names attempts as tickets do."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as records:
        jobs = records.execute("SELECT count(*) FROM jobs").fetchone()[0]
        stuck = records.execute("SELECT count(*) FROM runs WHERE status = 'active'").fetchone()[0]
        reported = {f"{job}.{attempt}" for job, attempt in records.execute("SELECT job_id, attempt FROM reports")}
        ends = _ends(records)
    finished = {ticket.name: ticket.stat().st_mtime for ticket in tickets.iterdir()}
    rest = finished.keys() - reported
    by_server = {name for name in rest if name in expired_by_fault or ends.get(name, ("", 0.0))[0] == "run_cancelled"}
    silent = {name for name in rest - by_server if name in ends and ends[name][0] == "liveness_timeout"}
    killed = {name for name in silent if any(-LEEWAY < at - finished[name] < UNKEPT for at in killed_at)}
    lost = tuple(sorted(rest - by_server - killed))
    return Accounts(jobs, stuck, len(finished), len(finished) - len(rest), len(by_server), len(killed), lost)


def _ends(records: sqlite3.Connection) -> dict[str, tuple[str, float]]:
    """By attempt: why the server ended it by itself, and when."""
    ends: dict[str, tuple[str, float]] = {}
    for timestamp, data in records.execute("SELECT timestamp, data FROM events WHERE type = 'job_updated'"):
        job = json.loads(data)
        why = job.get("error_type")
        if why in ("liveness_timeout", "run_cancelled") and job["status"] in ("pending", "failed"):
            # A job that is pending again tells why the attempt before has ended.
            attempt = job["attempt"] - (job["status"] == "pending")
            ends.setdefault(f"{job['id']}.{attempt}", (why, timestamp))
    return ends
