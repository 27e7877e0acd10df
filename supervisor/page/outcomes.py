"""The jobs that have ended here, newest first.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.page.figures import Mood, length, moment
from supervisor.page.markup import Markup, element, lines
from supervisor.status import Recent
from supervisor.text.printable import shortened

_LONGEST_NAME = 200
_LONGEST_SUMMARY = 300
_LONGEST_MESSAGE = 2000
_MOODS: dict[str, Mood] = {"completed": "good", "cancelled": "warn", "shutdown": "warn", "lease_lost": "warn"}


def outcomes_table(recent: Sequence[Recent]) -> Markup:
    """A row for each; what is longer than a line unfolds."""
    heading = element("h2", "Recent outcomes")
    if not recent:
        return element("section", heading, element("p", "No job has ended here yet.", class_="nothing"))
    headings = (element("th", name, scope="col") for name in ("Ended", "Job", "Outcome", "Took", "Message"))
    newest_first = sorted(recent, key=lambda ended: ended.ended_at, reverse=True)
    body = element("tbody", *map(_row, newest_first))
    return element(
        "section", heading, element("table", element("thead", element("tr", *headings)), body, class_="recent")
    )


def _row(ended: Recent) -> Markup:
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
