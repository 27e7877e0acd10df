"""The tables of slots and of recent outcomes, and the reading of a job's progress payload.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from supervisor.page.figures import (
    Markup,
    Mood,
    bar,
    clock,
    counted,
    element,
    joined,
    length,
    lines,
    moment,
    mood_of,
    share_of,
)
from supervisor.status import JobStatus, Recent, SlotStatus
from supervisor.text.duration import format_duration
from supervisor.text.printable import shortened
from supervisor.text.size import format_size

# A heading for each cell of a busy row; on a narrow screen each cell shows its own.
_HEADINGS = ("Slot", "Job", "Elapsed", "Progress", "CPU", "Memory", "Lease left", "Last output", "Actions")
_LONGEST_NAME = 80
_LONGEST_LINE = 300


def slots_table(slots: Sequence[SlotStatus]) -> Markup:
    """Return the table of all slots, in order."""
    headings = (element("th", heading, scope="col", class_=_class_of(heading)) for heading in _HEADINGS)
    return element(
        "table",
        element("caption", "Slots"),
        element("thead", element("tr", *headings)),
        element("tbody", *map(_row, slots)),
        class_="slots",
    )


def _row(slot: SlotStatus) -> Markup:
    identity = f"slot-{slot.slot}"
    if slot.job is None:
        number = element("th", str(slot.slot), scope="row", class_="slot")
        # Spans all columns but the actions, which are hidden from viewers who may only read.
        standing = element("td", _without_job(slot), colspan=str(len(_HEADINGS) - 2), class_="standing")
        return element("tr", number, standing, element("td", class_="actions"), id=identity, class_="free")
    is_reported = slot.state == "reporting"
    kind = "reporting" if is_reported else "stopping" if slot.job.stopping else "busy"
    return element("tr", _slot(slot), *_job(slot.job, is_reported=is_reported), id=identity, class_=kind)


def _without_job(slot: SlotStatus) -> str:
    said = {"none": "no child", "busy": "busy"}.get(slot.state, slot.state)
    child = [f"pid {slot.pid}", counted(slot.jobs, "job")] if slot.pid is not None else []
    memory = [format_size(slot.memory)] if slot.memory is not None else []
    return " · ".join([said, *child, *memory])


def _slot(slot: SlotStatus) -> Markup:
    pid = element("small", f"pid {slot.pid}" if slot.pid is not None else "no child", title=counted(slot.jobs, "job"))
    return element("th", element("b", str(slot.slot)), pid, scope="row", class_="slot")


def _job(job: JobStatus, *, is_reported: bool) -> list[Markup]:
    cells = (
        _what(job, is_reported=is_reported),
        _elapsed(job),
        _progress(job.progress),
        _cpu(job),
        _memory(job),
        _lease(job),
    )
    actions = Markup() if is_reported else _actions(job)
    named = zip(_HEADINGS[1:], (*cells, _last_line(job.last_line), actions), strict=True)
    return [element("td", cell, class_=_class_of(heading), data_label=heading) for heading, cell in named]


def _class_of(heading: str) -> str:
    return heading.lower().split()[0]


def _what(job: JobStatus, *, is_reported: bool) -> Markup:
    name, job_id = shortened(job.action, _LONGEST_NAME), shortened(job.job_id, _LONGEST_NAME)
    attempt = element("i", f"attempt {job.attempt}", class_="tag") if job.attempt > 1 else ""
    where = f"job {job_id}, run {shortened(job.run_id, _LONGEST_NAME)}, queue {shortened(job.queue, _LONGEST_NAME)}"
    ending = _ending(job, is_reported=is_reported)
    return element("div", element("b", name), attempt, element("small", job_id, class_="code"), ending, title=where)


def _ending(job: JobStatus, *, is_reported: bool) -> Markup:
    if is_reported:
        return element("small", "has ended and is being reported", class_="clamped")
    reason = shortened(job.stopping or "", _LONGEST_LINE)
    return element("small", f"stopping: {reason}", class_="warn clamped") if job.stopping else Markup()


def _elapsed(job: JobStatus) -> Markup:
    share = share_of(job.elapsed, job.timeout)
    limit = f"of {format_duration(job.timeout)}" if share is not None and job.timeout else "no timeout"
    return _measure(clock(job.elapsed), limit, share, mood_of(share))


def _progress(payload: msgspec.Raw | None) -> Markup:
    if payload is None:
        return _nothing()
    progress = read_progress(payload)
    text = shortened(progress.text, _LONGEST_LINE)
    message = element("small", text, class_="clamped", title=text) if text else ""
    if progress.share is None:
        return joined(progress.count, message)
    return joined(_measure(f"{progress.share:.0%}", progress.count, progress.share), message)


def _cpu(job: JobStatus) -> Markup:
    if job.cpu_seconds is None:
        return _nothing()
    # Percent of one core; more than 100 % with several threads or processes.
    load = f"{job.cpu_seconds / job.elapsed:.0%}" if job.elapsed >= 1 else ""
    used = clock(job.cpu_seconds) if job.cpu_seconds < 86400 else length(job.cpu_seconds)
    return joined(used, " ", element("small", load))


def _memory(job: JobStatus) -> Markup:
    if job.memory is None:
        return _nothing()
    share = share_of(job.memory, job.memory_limit)
    limit = f"of {format_size(job.memory_limit)}" if job.memory_limit else "no limit"
    return _measure(format_size(job.memory), limit, share, mood_of(share))


def _lease(job: JobStatus) -> Markup:
    if job.lease_left is None or not math.isfinite(job.lease_left):
        return _nothing()
    share = share_of(job.lease_left, job.lease_length)
    mood: Mood = "" if share is None or share >= 1 / 3 else "warn" if share > 0.1 else "bad"
    if job.beat_overdue:
        return _measure(length(job.lease_left), "no heartbeat is sent", share, "bad")
    return _measure(length(job.lease_left), "", share, mood)


def _last_line(line: str | None) -> Markup:
    text = shortened(line or "", _LONGEST_LINE)
    return element("code", text, title=text, class_="clamped") if text else _nothing()


def _actions(job: JobStatus) -> Markup:
    # The ids keep the keyboard focus on the button exactly while this job runs.
    stack = _button("stack", job, "Stack")
    return stack if job.stopping else joined(stack, " ", _button("cancel", job, "Cancel"))


def _button(deed: str, job: JobStatus, text: str) -> Markup:
    what = f"{text}: {shortened(job.action, _LONGEST_NAME)}"
    identity = f"{deed}-of-{job.job_id}"  # cannot equal another id for any job id
    return element(
        "button",
        text,
        type="button",
        id=identity,
        data_do=deed,
        data_job=job.job_id,
        data_what=shortened(job.action, _LONGEST_NAME),
        aria_label=what,
    )


def _measure(figure: str, limit: str, share: float | None, mood: Mood = "") -> Markup:
    below = joined(" ", element("small", limit)) if limit else ""
    return joined(element("span", figure, class_=mood or None), below, bar(share, mood))


def _nothing() -> Markup:
    return element("span", "–", class_="nothing")


_LONGEST_SUMMARY = 300
_LONGEST_MESSAGE = 2000
_MOODS: dict[str, Mood] = {"completed": "good", "cancelled": "warn", "shutdown": "warn", "lease_lost": "warn"}


def outcomes_table(recent: Sequence[Recent]) -> Markup:
    """Return the table of recent outcomes; messages longer than a line can be unfolded."""
    heading = element("h2", "Recent outcomes")
    if not recent:
        return element("section", heading, element("p", "No job has ended here yet.", class_="nothing"))
    headings = (element("th", name, scope="col") for name in ("Ended", "Job", "Outcome", "Took", "Message"))
    newest_first = sorted(recent, key=lambda ended: ended.ended_at, reverse=True)
    body = element("tbody", *map(_outcome_row, newest_first))
    return element(
        "section", heading, element("table", element("thead", element("tr", *headings)), body, class_="recent")
    )


def _outcome_row(ended: Recent) -> Markup:
    attempt = element("i", f"attempt {ended.attempt}", class_="tag") if ended.attempt > 1 else ""
    job_id = element("small", shortened(ended.job_id, _LONGEST_NAME), class_="code")
    what = (element("b", shortened(ended.action, _LONGEST_NAME)), attempt, " ", job_id)
    outcome = element("span", ended.outcome.replace("_", " "), class_=f"outcome {_MOODS.get(ended.outcome, 'bad')}")
    return element(
        "tr",
        element("td", moment(ended.ended_at), class_="ended"),
        element("th", *what, scope="row"),
        element("td", outcome, class_="how"),
        element("td", length(ended.seconds), class_="took"),
        element("td", _message(ended.message), class_="message"),
        id=f"ended-{ended.job_id}-{ended.attempt}-{ended.ended_at}",
    )


def _message(message: str | None) -> Markup:
    text = (message or "").strip()
    first = text.partition("\n")[0]
    summary = shortened(first, _LONGEST_SUMMARY)
    if summary == text:
        return element("span", summary)
    whole = element("pre", lines(shortened(text, _LONGEST_MESSAGE)))
    return element("details", element("summary", summary), whole)


# Larger payloads are shown undecoded and cut.
_LONGEST = 16 * 1024
_KNOWN = {"done", "total", "percent", "message"}


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a job: the finished `share` (0 to 1), the `count` and further text, as far as known."""

    share: float | None
    count: str
    text: str


def read_progress(payload: msgspec.Raw) -> Progress:
    """Read `done`, `total`, `percent` and `message` of a payload; return all other members as text."""
    said = _members(payload)
    if said is None:
        return Progress(None, "", bytes(payload)[:_LONGEST].decode("utf-8", "replace"))
    done, total, percent = (_number(said.get(name)) for name in ("done", "total", "percent"))
    share = share_of(percent, 100) if percent is not None else None if done is None else share_of(done, total)
    return Progress(share, _count(done, total), " · ".join(_texts(said)))


def _count(done: float | None, total: float | None) -> str:
    if done is None:
        return ""
    return f"{done:,.12g}" if total is None else f"{done:,.12g} of {total:,.12g}"


def _texts(said: dict[str, msgspec.Raw]) -> Iterator[str]:
    if "message" in said:
        yield _text(said["message"])
    for name, value in said.items():
        if name not in _KNOWN:
            yield f"{name} {_text(value)}"


def _members(payload: msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    try:
        return msgspec.json.decode(payload, type=dict[str, msgspec.Raw]) if len(bytes(payload)) <= _LONGEST else None
    except (msgspec.DecodeError, RecursionError):
        return None


def _number(value: msgspec.Raw | None) -> float | None:
    try:
        number = msgspec.json.decode(value, type=float) if value is not None else math.nan
    except msgspec.DecodeError:
        return None
    return number if math.isfinite(number) else None


def _text(value: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(value, type=str)
    except msgspec.DecodeError:
        return bytes(value).decode("utf-8", "replace")
