"""The status as text for a terminal.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from supervisor.columns import aligned
from supervisor.duration import format_duration
from supervisor.printable import escaped
from supervisor.size import format_size
from supervisor.status import JobStatus, Recent, SlotStatus, SpoolStatus, Status

WIDEST = 60
"""Characters of a text that others wrote."""
SHOWN = 10
"""Jobs that have ended."""

_SLOTS = ("SLOT", "PID", "STATE", "JOBS", "JOB", "HANDLER", "TIME", "PROGRESS", "CPU", "MEMORY", "LEASE", "LAST LINE")
_RECENT = ("ENDED", "JOB", "HANDLER", "OUTCOME", "TOOK", "MESSAGE")


def table_of(status: Status) -> str:
    """All of it, ending with a newline."""
    return "".join(f"{line}\n" for line in _lines(status))


def _lines(status: Status) -> Iterator[str]:
    yield f"{escaped(status.worker_id)}  {status.state}  since {_ago(status.now - status.started_at)}"
    yield f"{escaped(status.base_url)}  project {status.project}  version {status.version}  pid {status.pid}"
    yield ""
    yield aligned([_SLOTS, *map(_slot, status.slots)])
    if status.recent:
        yield ""
        yield aligned([_RECENT, *(_recent(status, ended) for ended in status.recent[:SHOWN])])
    yield ""
    yield from _rest(status)


def _rest(status: Status) -> Iterator[str]:
    claims, code = status.claims, status.code
    answer = "no answer yet" if claims.last_answer_age is None else f"last answer {_ago(claims.last_answer_age)} ago"
    job = "" if claims.last_job_age is None else f", last job {_ago(claims.last_job_age)} ago"
    yield f"claims    {claims.open_polls} open, {answer}{job}{_because(claims.reason)}"
    actions = ", ".join(map(escaped, code.actions)) or "none"
    yield f"handlers  {actions} (generation {code.generation}, {_ago(status.now - code.loaded_at)} old)"
    for problem in code.problems:
        yield f"          not served: {escaped(problem)}"
    if code.error is not None:
        yield f"reload    failed: {escaped(code.error)}"
    if status.standstill is not None:
        yield f"stuck     {escaped(status.standstill)}"
    if status.spool.trouble is not None:
        yield f"disk      outcomes wait in memory only, until their lease is over: {escaped(status.spool.trouble)}"
    if status.spool.items:
        yield f"spool     {_spool(status.spool)}"
    if status.quarantined:
        yield f"refused   {', '.join(map(escaped, status.quarantined))}"


def _slot(slot: SlotStatus) -> Sequence[str]:
    here = (str(slot.slot), _or_dash(slot.pid), slot.state, str(slot.jobs))
    job, ends = slot.job, "stopped" if slot.state == "reporting" else "stopping"
    if job is None:
        return (*here, "-", "-", "-", "-", "-", _size(slot.memory), "-", "-")
    return (
        *here,
        f"{escaped(job.job_id)}#{job.attempt}",
        escaped(job.action),
        f"{_length(job.elapsed)} of {_length(job.timeout)}" if job.timeout is not None else _length(job.elapsed),
        _progress(job),
        "-" if job.cpu_seconds is None else f"{job.cpu_seconds:.1f} s",
        _size(job.memory) + (f" of {format_size(job.memory_limit)}" if job.memory_limit is not None else ""),
        "-" if job.lease_left is None else _length(max(0.0, job.lease_left)),
        _cut((job.stopping and f"{ends}: {job.stopping}") or job.last_line or "-"),
    )


def _recent(status: Status, ended: Recent) -> Sequence[str]:
    return (
        f"{_ago(status.now - ended.ended_at)} ago",
        f"{escaped(ended.job_id)}#{ended.attempt}",
        escaped(ended.action),
        ended.outcome,
        _length(ended.seconds),
        _cut(ended.message or ""),
    )


def _progress(job: JobStatus) -> str:
    """`3/8 (38 %) message`, from what `context.progress` tells; anything else as it is."""
    if job.progress is None:
        return "-"
    told = msgspec.json.decode(job.progress) if isinstance(job.progress, msgspec.Raw) else job.progress
    if not isinstance(told, dict):
        return _cut(str(told))
    done, total, message = told.get("done"), told.get("total"), told.get("message")
    if not isinstance(done, int | float):
        return _cut(msgspec.json.encode(told).decode())
    part = f"{done:g}"
    if isinstance(total, int | float) and total > 0:
        part += f"/{total:g} ({done / total:.0%})"
    return _cut(f"{part} {message}" if message else part)


def _spool(spool: SpoolStatus) -> str:
    oldest = "" if spool.oldest_age is None else f", the oldest {_ago(spool.oldest_age)} old"
    return f"{spool.items} outcomes wait for the server, {format_size(spool.bytes)}{oldest}"


def _because(reason: str | None) -> str:
    return "" if reason is None else f": {escaped(reason)}"


def _length(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 60 else format_duration(round(seconds))


def _ago(seconds: float) -> str:
    return _length(max(0.0, seconds))


def _size(size: int | None) -> str:
    return "-" if size is None else format_size(size)


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def _cut(text: str) -> str:
    shown = escaped(text)
    return shown if len(shown) <= WIDEST else shown[: WIDEST - 1] + "…"
