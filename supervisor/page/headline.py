"""The top of the page: the worker, its state, and alerts for the operator.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from supervisor.page.figures import Markup, Mood, counted, element, joined, length, lines
from supervisor.status import ClaimStatus, CodeStatus, ServiceState, SpoolStatus, Status
from supervisor.text.printable import shortened
from supervisor.text.size import format_size

_MOODS: dict[ServiceState, Mood] = {
    "starting": "",
    "serving": "good",
    "paused": "warn",
    "draining": "warn",
    "stopping": "bad",
}
_STEERED = {"serving": ("pause", "Pause"), "paused": ("resume", "Resume")}
_LONGEST_NAME = 200
_LONGEST_TEXT = 4000
# Seconds; shorter delays are normal and not highlighted.
_LONG_LAG = 0.25
_OLD_OUTCOME = 60.0


def title(status: Status) -> str:
    """Return the title of the browser tab."""
    return f"{_busy(status)} · {_name(status.worker_id)}"


def headline(status: Status) -> Markup:
    """Return the header with the worker, its state and its figures."""
    state = element("span", status.state, class_=f"state {_MOODS[status.state]}".strip())
    name = element("div", element("h1", _name(status.worker_id)), state, _steering(status.state), class_="name")
    where = f"{_name(status.project)} at {_name(status.base_url)}"
    program = f"mobius-supervisor {status.version}, pid {status.pid}, up {length(status.now - status.started_at)}"
    return element("header", name, element("p", where, " · ", program), element("dl", *_facts(status)))


def alerts(status: Status) -> Markup:
    """Return an alert for each problem, with its details."""
    code = status.code
    shown = []
    if status.standstill is not None:
        shown.append(_alert("standstill", "bad", "The supervisor makes no progress.", status.standstill))
    if code.outage is not None:
        shown.append(_alert("outage", "bad", "No child can be started.", code.outage))
    if status.spool.trouble is not None:
        wait = "The spool cannot be used: outcomes wait in memory only, until their lease ends."
        shown.append(_alert("disk", "bad", wait, status.spool.trouble))
    if code.error is not None:
        stays = f"The last reload was not taken over; generation {code.generation} of the handlers stays in use."
        shown.append(_alert("reload", "bad", stays, code.error))
    if code.problems:
        shown.append(
            _alert("problems", "warn", counted(len(code.problems), "problem") + " in the handlers", *code.problems)
        )
    if status.quarantined:
        number = counted(len(status.quarantined), "quarantine")
        what = f"{number} for crashes: handlers are left out of claims, jobs are not run"
        shown.append(_alert("quarantine", "warn", what, *status.quarantined))
    return element("section", *shown, class_="alerts") if shown else Markup()


def _facts(status: Status) -> Iterator[Markup]:
    yield _claims(status.claims)
    yield _fact("Slots", _busy(status), _others(status))
    yield _code(status.code, status.now)
    yield _spool(status.spool)
    is_late = status.loop_lag > _LONG_LAG
    yield _fact(
        "Loop lag", f"{status.loop_lag * 1000:,.0f} ms", "too long" if is_late else "in time", "warn" if is_late else ""
    )


def _busy(status: Status) -> str:
    return f"{sum(slot.job is not None for slot in status.slots)} of {len(status.slots)} busy"


def _others(status: Status) -> str:
    states = Counter(slot.state for slot in status.slots if slot.job is None)
    return ", ".join(f"{count} {'without a child' if state == 'none' else state}" for state, count in states.items())


def _claims(claims: ClaimStatus) -> Markup:
    ages = (("answer", claims.last_answer_age), ("job", claims.last_job_age))
    known = [f"{what} {length(age)}" for what, age in ages if age is not None]
    note = f"last {', '.join(known)} ago" if known else "no answer yet"
    if claims.reason is not None:
        return _fact("Claims", shortened(claims.reason, 2 * _LONGEST_NAME), note, "warn")
    return _fact("Claims", f"asking, {counted(claims.open_polls, 'open poll')}", note)


def _code(code: CodeStatus, now: float) -> Markup:
    loaded = f"generation {code.generation}, {length(now - code.loaded_at)} old"
    return _fact("Handlers", f"{len(code.actions)} loaded", loaded, "bad" if not code.actions else "")


def _spool(spool: SpoolStatus) -> Markup:
    if not spool.items:
        return _fact("Spool", "empty", "the server has every outcome")
    age = spool.oldest_age or 0.0
    note = f"{format_size(spool.bytes)}, oldest {length(age)}"
    return _fact("Spool", f"{counted(spool.items, 'outcome')} to send", note, "warn" if age > _OLD_OUTCOME else "")


def _fact(name: str, value: str, note: str, mood: Mood = "") -> Markup:
    return element(
        "div", element("dt", name), element("dd", value, class_=mood or None), element("dd", note, class_="note")
    )


def _steering(state: ServiceState) -> Markup:
    if state not in _STEERED:
        return Markup()
    deed, word = _STEERED[state]
    return element("button", word, type="button", id=deed, data_do=deed)


def _alert(identity: str, mood: Mood, summary: str, *details: str) -> Markup:
    texts = (element("pre", lines(shortened(text, _LONGEST_TEXT))) for text in details)
    return element("details", element("summary", summary), joined(*texts), id=f"alert-{identity}", class_=mood)


def _name(text: str) -> str:
    return shortened(text, _LONGEST_NAME)
