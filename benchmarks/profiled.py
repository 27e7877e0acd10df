"""The program with its main thread sampled: `python -m benchmarks.profiled FILE run …`; see `profile`.

SIGUSR2 begins to count and, when it comes again, writes to FILE how many samples fell in which file of the code.  The
kernel asks for a sample each millisecond of processor time (setitimer(2), ITIMER_PROF); Python takes it when it next
runs Python code, so that what C code takes counts for its caller or for what comes after it.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from supervisor.cli.main import main

EVERY = 0.001


class Sampler:
    """Counts the innermost Python frame's file."""

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self._found: Counter[str] = Counter()
        self._is_on = False
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.signal(signal.SIGUSR2, self._toggle)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        if frame is not None:
            self._found[frame.f_code.co_filename] += 1

    def _toggle(self, _number: int, _frame: FrameType | None) -> None:
        self._is_on = not self._is_on
        every = EVERY if self._is_on else 0.0
        signal.setitimer(signal.ITIMER_PROF, every, every)
        if not self._is_on:
            unfinished = self._destination.with_suffix(".part")
            unfinished.write_text(json.dumps(self._found))
            unfinished.rename(self._destination)


if __name__ == "__main__":
    Sampler(Path(sys.argv.pop(1)))
    main()
