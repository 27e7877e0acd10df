"""This supervisor beside the published SDK's pool and Celery's: `make compare`, or `python -m benchmarks.comparison`.

All are given the same functions to run (`handlers/_jobs.py`).  Each round of each experiment has a queue and a worker
of its own, and the contenders take turns.  What they are measured at is no benchmark of queues: the first two are on
the development server, a Python program over SQLite, Celery is on Redis.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.beacon import Beacon, beacon
from benchmarks.comparison.burden import memory, start, throughput
from benchmarks.comparison.celery_pool import CeleryPool, FreezingCeleryPool, KillingCeleryPool, why_not
from benchmarks.comparison.mobius import Ours, Sdk
from benchmarks.comparison.session import Session
from benchmarks.comparison.starving import one_loop_in_c, python_loops
from benchmarks.comparison.stopping import cancel_c, cancel_python, kill_the_worker
from benchmarks.comparison.trouble import crash, growth, long_jobs, outage, outage_and_kill
from benchmarks.figures import shown
from benchmarks.machine import machine, versions

Experiment = Callable[[Session, Beacon], dict[str, float | str]]

EXPERIMENTS: dict[str, tuple[Experiment, int]] = {
    "cancel-python": (cancel_python, 3),
    "cancel-c": (cancel_c, 3),
    "kill": (kill_the_worker, 2),
    "heartbeats": (python_loops, 1),
    "heartbeats-c": (one_loop_in_c, 1),
    "outage": (outage, 2),
    "outage-kill": (outage_and_kill, 2),
    "crash": (crash, 1),
    "growth": (growth, 1),
    "long": (long_jobs, 1),
    "start": (start, 3),
    "memory": (memory, 2),
    "throughput": (throughput, 3),
}
"""Each, and how many rounds of it are enough."""

Found = dict[str, dict[str, list[float | str]]]
"""By the question and the contender."""


VARIANTS: dict[str, type[Session]] = {
    "cancel-python": KillingCeleryPool,
    "cancel-c": KillingCeleryPool,
    "memory": FreezingCeleryPool,
}
"""Where Celery can do better than it does by default."""


def contenders(experiment: str) -> list[tuple[str, type[Session]]]:
    """All that take part in an experiment, if they are here."""
    known: list[tuple[str, type[Session]]] = [("this supervisor", Ours), ("the SDK's pool", Sdk)]
    if why_not() is None:
        known += [("Celery, prefork", CeleryPool)]
        known += [("Celery, prefork", VARIANTS[experiment])] if experiment in VARIANTS else []
    return known


def compare(names: Sequence[str], *, short: bool) -> Found:
    """All rounds of some experiments."""
    found: Found = {}
    for name in names:
        experiment, rounds = EXPERIMENTS[name]
        for number in range(1 if short else rounds):
            for contender, kind in contenders(name):
                print(f"round {number + 1}: {name}, {contender}{kind.variant}", file=sys.stderr, flush=True)
                for question, answer in _try(experiment, kind).items():
                    found.setdefault(question + kind.variant, {}).setdefault(contender, []).append(answer)
    return found


def _try(experiment: Experiment, kind: type[Session]) -> Mapping[str, float | str]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, beacon() as told, kind(Path(folder)) as session:
        return experiment(session, told)


def table(found: Found) -> str:
    """The answers in Markdown, a line each question."""
    names = list(dict.fromkeys(name for answers in found.values() for name in answers))
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    lines += [
        f"| {question} | {' | '.join(_cell(answers.get(name, [])) for name in names)} |"
        for question, answers in found.items()
    ]
    return "\n".join(lines)


def _cell(answers: Sequence[float | str]) -> str:
    """The median and between what it lay; or what was seen, each once."""
    numbers = [answer for answer in answers if isinstance(answer, float)]
    if len(numbers) < len(answers):
        return ", ".join(dict.fromkeys(shown(each) if isinstance(each, float) else each for each in answers))
    if not numbers:
        return "–"
    middle, low, high = statistics.median(numbers), min(numbers), max(numbers)
    return shown(middle) if low == high else f"{shown(middle)} ({shown(low)} – {shown(high)})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.comparison", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("experiments", nargs="*", help="only these: " + ", ".join(EXPERIMENTS))
    parser.add_argument("--short", action="store_true", help="one round of each")
    options = parser.parse_args()
    if (missing := why_not()) is not None:
        print(missing, file=sys.stderr)
    where = machine()
    found = compare(options.experiments or list(EXPERIMENTS), short=options.short)
    print(f"Machine: {where}; {versions()}.", table(found), sep="\n\n")


if __name__ == "__main__":
    main()
