"""The table of slots: a row each, with its child and its job.  Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from supervisor.page.figures import Mood, bar, clock, counted, length, mood_of, share_of
from supervisor.page.markup import Markup, element, joined
from supervisor.page.progress import read_progress
from supervisor.status import JobStatus, SlotStatus
from supervisor.text.duration import format_duration
from supervisor.text.printable import shortened
from supervisor.text.size import format_size

# A heading for each cell of a busy row; on a narrow screen each cell bears its own.
_HEADINGS = ("Slot", "Job", "Elapsed", "Progress", "CPU", "Memory", "Lease left", "Last output", "Actions")
_LONGEST_NAME = 80
_LONGEST_LINE = 300


def slots_table(slots: Sequence[SlotStatus]) -> Markup:
    """All slots, in order."""
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
        # Up to the actions, which are not there for whoever may only look: a column more would stand empty.
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
    # Of one core; a job of several threads or processes has more.
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
    # The ids keep the keyboard's focus on the button while this job runs, and only then.
    stack = _button("stack", job, "Stack")
    return stack if job.stopping else joined(stack, " ", _button("cancel", job, "Cancel"))


def _button(deed: str, job: JobStatus, text: str) -> Markup:
    what = f"{text}: {shortened(job.action, _LONGEST_NAME)}"
    identity = f"{deed}-of-{job.job_id}"  # no job's id makes it the id of something else
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
