"""All benchmarks side by side: `make bench`, or `python -m benchmarks [--short]`.

They take turns, round by round, so that whatever else the machine does meanwhile falls on all of them.  The figures
become a section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.events import Events
from benchmarks.figures import Subject, table
from benchmarks.growth import Growth
from benchmarks.heartbeats import Heartbeats
from benchmarks.idle import Idle
from benchmarks.kill import Kill
from benchmarks.machine import commit, machine, versions
from benchmarks.memory import Memory
from benchmarks.payload import Payload
from benchmarks.peers import Peers
from benchmarks.ramp import Ramp
from benchmarks.start import Start
from benchmarks.throughput import Throughput

RESULTS = Path(__file__).with_name("RESULTS.md")
HEADING = "## Benchmarks"


def subjects() -> list[Subject]:
    """All, in the order of the table."""
    return [
        Throughput(),
        Kill(),
        Start(),
        Peers(),
        Memory(),
        Idle(),
        Ramp(),
        Heartbeats(),
        Events(),
        Payload(),
        Growth(),
    ]


def short_subjects() -> list[Subject]:
    """The same, each once and as little of it as shows that it works."""
    brief = subjects()
    for subject in brief:
        subject.rounds = 1
        match subject:
            case Kill():
                subject.often = 3
            case Idle() | Heartbeats():
                subject.seconds = 5.0
    return brief


def measure(measured: Sequence[Subject]) -> None:
    """All rounds of all subjects, in alternation."""
    for number in range(max(subject.rounds for subject in measured)):
        for subject in measured:
            if number < subject.rounds:
                print(f"round {number + 1} of {subject.rounds}: {subject.title}", file=sys.stderr, flush=True)
                subject.measure()


def section(measured: Sequence[Subject], where: str, seconds: float) -> str:
    """The figures as a part of a Markdown file."""
    date = time.strftime("%Y-%m-%d", time.gmtime())
    parts = [
        HEADING,
        "    make bench",
        f"One run of {seconds:.0f} s, of {date}, at commit {commit()}.  Machine: {where}; {versions()}.",
        "All that is compared was measured in alternation in this one run; the server is a process of its own.",
    ]
    for subject in measured:
        rounds = f"{subject.rounds} rounds" if subject.rounds > 1 else "1 round"
        parts += [f"### {subject.title} ({rounds})", table(subject.figures())]
    return "\n\n".join(parts) + "\n"


def put(new: str, whole: str) -> str:
    """A Markdown text with the section in the place of the one that had its heading, or at its end."""
    old = re.compile(rf"^{HEADING}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if old.search(whole):
        return old.sub(lambda _: new + "\n", whole).rstrip() + "\n"
    return f"{whole.rstrip()}\n\n{new}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="one small round of each; nothing is written")
    options = parser.parse_args()
    where, began = machine(), time.monotonic()
    measured = short_subjects() if options.short else subjects()
    measure(measured)
    found = section(measured, where, time.monotonic() - began)
    print(found)
    if not options.short:
        RESULTS.write_text(put(found, RESULTS.read_text()))


if __name__ == "__main__":
    main()
