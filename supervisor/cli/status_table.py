"""The status as a text table for a terminal.  Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from os import terminal_size

import msgspec

from supervisor.status import ClaimStatus, JobStatus, Recent, SlotStatus, SpoolStatus, Status
from supervisor.text.columns import Narrowing, aligned, fitted
from supervisor.text.duration import format_duration
from supervisor.text.printable import escaped, shortened, shown_name
from supervisor.text.size import format_size

MAX_CELL_CHARS = 60
"""Characters of a text from a job or the server."""
MAX_RECENT_ROWS = 10
"""Ended jobs that are shown."""
MAX_MESSAGE_LINES = 3
"""Lines of each problem when the table must fit into a terminal."""

_SLOTS = ("SLOT", "PID", "STATE", "JOBS", "JOB", "HANDLER", "TIME", "PROGRESS", "CPU", "MEMORY", "LEASE", "LAST LINE")
_RECENT = ("ENDED", "JOB", "HANDLER", "OUTCOME", "TOOK", "MESSAGE")

# The least important columns shrink first; the handler and the time of a job stay.
_NARROWER_SLOTS: Narrowing = (
    *(("LAST LINE", 24), ("JOBS", 0), ("PID", 0), ("CPU", 0), ("PROGRESS", 24), ("MEMORY", 0), ("LAST LINE", 0)),
    *(("PROGRESS", 12), ("HANDLER", 16), ("STATE", 0), ("JOB", 0), ("SLOT", 0), ("HANDLER", 10), ("PROGRESS", 9)),
    *(("LEASE", 0), ("PROGRESS", 0)),
)
_NARROWER_RECENT: Narrowing = (
    *(("MESSAGE", 30), ("TOOK", 0), ("HANDLER", 16), ("JOB", 0), ("MESSAGE", 10), ("HANDLER", 10), ("MESSAGE", 0)),
    ("ENDED", 0),
)
_INDENT = " " * 10


def table_of(status: Status, room: terminal_size | None = None) -> str:
    """Return the whole status, ending with a newline; with a `room`, only the most important lines that fit."""
    lines = _all(status) if room is None else _in(room, status)
    return "".join(f"{line}\n" for line in lines)


def _all(status: Status) -> Iterator[str]:
    yield from _head(status)
    yield ""
    yield from _outlook(status)
    yield _handlers(status)
    yield ""
    yield aligned([_SLOTS, *map(_slot, status.slots)])
    if status.recent:
        yield ""
        yield aligned([_RECENT, *(_recent(status, ended) for ended in status.recent[:MAX_RECENT_ROWS])])


def _in(room: terminal_size, status: Status) -> list[str]:
    """Return the lines that fit into a terminal.  Problems come first, because operators must not miss them."""
    lines = [shortened(line, room.columns) for line in _head(status)]
    lines += [part for line in _outlook(status) for part in _folded(line, room.columns)]
    lines += [shortened(_handlers(status), room.columns)]
    lines += ["", *_slots_in(status, room.columns, room.lines - len(lines) - 1)]
    if status.recent and room.lines - len(lines) > 2:
        recent = [_RECENT, *(_recent(status, ended) for ended in status.recent[:MAX_RECENT_ROWS])]
        lines += ["", *fitted(recent, room.columns, _NARROWER_RECENT).split("\n")]
    return lines[: room.lines]


def _slots_in(status: Status, width: int, height: int) -> list[str]:
    """Return the rows of the slots; if not all fit, slots with a job come first."""
    slots = list(status.slots)
    hidden = max(0, len(slots) + 1 - height)
    if hidden:
        slots = sorted(slots, key=lambda slot: slot.job is None)[: max(0, height - 2)]
    lines = fitted([_SLOTS, *map(_slot, slots)], width, _NARROWER_SLOTS).split("\n")
    return [*lines, f"and {len(status.slots) - len(slots)} more"] if hidden else lines


def _folded(line: str, width: int) -> list[str]:
    width = max(width, 2 * len(_INDENT))  # a narrower text is not readable
    return textwrap.wrap(line, width, subsequent_indent=_INDENT, max_lines=MAX_MESSAGE_LINES, placeholder="…")


def _head(status: Status) -> Iterator[str]:
    yield f"{escaped(status.worker_id)}  {status.state}  since {_ago(status.now - status.started_at)}"
    yield f"{escaped(status.base_url)}  project {status.project}  version {status.version}  pid {status.pid}"


def _outlook(status: Status) -> Iterator[str]:
    """Yield the state of the claims and all problems."""
    code = status.code
    if status.standstill is not None:
        yield f"stuck     {escaped(status.standstill)}"
    if status.spool.trouble is not None:
        yield f"disk      outcomes wait in memory only, until their lease is over: {escaped(status.spool.trouble)}"
    yield f"claims    {_claims(status.claims)}"
    if code.outage is not None:
        yield f"children  none can be started: {escaped(code.outage)}"
    if code.error is not None:
        yield f"reload    failed: {escaped(code.error)}"
    for problem in code.problems:
        yield f"handlers  not served: {escaped(problem)}"
    if status.quarantined:
        yield f"crashing  {', '.join(map(shown_name, status.quarantined))}"
    if status.spool.items:
        yield f"spool     {_spool(status.spool)}"


def _handlers(status: Status) -> str:
    code = status.code
    actions = ", ".join(map(shown_name, code.actions)) or "none"
    return f"handlers  {actions} (generation {code.generation}, {_ago(status.now - code.loaded_at)} old)"


def _claims(claims: ClaimStatus) -> str:
    because = "" if claims.reason is None else f": {escaped(claims.reason)}"
    answer = "no answer yet" if claims.last_answer_age is None else f"last answer {_ago(claims.last_answer_age)} ago"
    job = "" if claims.last_job_age is None else f", last job {_ago(claims.last_job_age)} ago"
    return f"{claims.open_polls} open{because}{',' if claims.reason is None else ';'} {answer}{job}"


def _slot(slot: SlotStatus) -> Sequence[str]:
    here = (str(slot.slot), _or_dash(slot.pid), slot.state, str(slot.jobs))
    job, ends = slot.job, "stopped" if slot.state == "reporting" else "stopping"
    if job is None:
        return (*here, "-", "-", "-", "-", "-", _size(slot.memory), "-", "-")
    return (
        *here,
        f"{shown_name(job.job_id)}#{job.attempt}",
        shown_name(job.action),
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
        f"{shown_name(ended.job_id)}#{ended.attempt}",
        shown_name(ended.action),
        ended.outcome,
        _length(ended.seconds),
        _cut(ended.message or ""),
    )


def _progress(job: JobStatus) -> str:
    """Return the payload of `context.progress` as `3/8 (38%) message`, and any other payload unchanged."""
    if job.progress is None:
        return "-"
    payload = msgspec.json.decode(job.progress) if isinstance(job.progress, msgspec.Raw) else job.progress
    if not isinstance(payload, dict):
        return _cut(str(payload))
    done, total, message = payload.get("done"), payload.get("total"), payload.get("message")
    if not isinstance(done, int | float):
        return _cut(msgspec.json.encode(payload).decode())
    part = f"{done:g}"
    if isinstance(total, int | float) and total > 0:
        part += f"/{total:g} ({done / total:.0%})"
    return _cut(f"{part} {message}" if message else part)


def _spool(spool: SpoolStatus) -> str:
    oldest = "" if spool.oldest_age is None else f", the oldest {_ago(spool.oldest_age)} old"
    waiting = "1 outcome waits" if spool.items == 1 else f"{spool.items} outcomes wait"
    return f"{waiting} for the server, {format_size(spool.bytes)}{oldest}"


def _length(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 60 else format_duration(round(seconds))


def _ago(seconds: float) -> str:
    return _length(max(0.0, seconds))


def _size(size: int | None) -> str:
    return "-" if size is None else format_size(size)


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def _cut(text: str) -> str:
    return shortened(escaped(text), MAX_CELL_CHARS)
