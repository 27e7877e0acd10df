"""The signals that the program reacts to.  Runs in the parent; what they mean for a shutdown stands in `shutdown`.

SIGHUP              reload; when the terminal it was started from is gone: drain
SIGTSTP, SIGCONT    claim nothing (Ctrl-Z on a terminal, too), and again; a pause by command is not lifted
SIGTTIN, SIGTTOU    one child more, one less
SIGUSR1             what the program and its jobs are doing, in the log
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Steered(Protocol):
    """Who is steered by signals; `by` is the signal's name.  Nothing waits, nothing raises."""

    def ask_to_reload(self, by: str) -> object: ...
    def pause_by_signal(self, by: str) -> None: ...
    def resume_by_signal(self, by: str) -> None: ...
    def resize(self, by: str, more: int) -> None: ...
    def dump(self) -> None: ...


@contextmanager
def signal_handlers(reactions: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Call these in the running loop when a signal comes inside the block."""
    loop = asyncio.get_running_loop()
    for number, reaction in reactions.items():
        loop.add_signal_handler(number, reaction)
    try:
        yield
    finally:
        for number in reactions:
            loop.remove_signal_handler(number)


def operator_signals(find: Callable[[], Steered | None], hang_up: Callable[[], None]) -> AbstractContextManager[None]:
    """Steer what `find` returns inside the block; it is None while there is nothing to steer yet, or any more.

    `hang_up` is called when the terminal that we were started from is gone.
    """
    terminal = _Terminal()

    def hung_up() -> None:
        if terminal.is_gone:
            hang_up()
        elif steered := find():
            steered.ask_to_reload("SIGHUP")

    def when_there(reaction: Callable[[Steered], object]) -> Callable[[], None]:
        def react() -> None:
            if steered := find():
                reaction(steered)

        return react

    return signal_handlers(
        {
            signal.SIGHUP: hung_up,
            signal.SIGTSTP: when_there(lambda steered: steered.pause_by_signal("SIGTSTP")),
            signal.SIGCONT: when_there(lambda steered: steered.resume_by_signal("SIGCONT")),
            signal.SIGTTIN: when_there(lambda steered: steered.resize("SIGTTIN", +1)),
            signal.SIGTTOU: when_there(lambda steered: steered.resize("SIGTTOU", -1)),
            signal.SIGUSR1: when_there(lambda steered: steered.dump()),
        }
    )


class _Terminal:
    """The terminal that we were started from, whose end comes as SIGHUP as well."""

    def __init__(self) -> None:
        # Whoever starts us with nohup wants us to outlive it.
        self._matters = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    @property
    def is_gone(self) -> bool:
        return self._matters and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:  # ENXIO without one, EIO after a hang-up
        return False
    return True
