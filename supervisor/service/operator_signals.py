"""Signals of operators: each one is an order to `Operator`.  Runs in the parent.

SIGHUP              reload; drain when the terminal of the program is gone
SIGTSTP, SIGCONT    block claims (Ctrl-Z on a terminal, too), unblock them; a pause by command stays
SIGTTIN, SIGTTOU    add a slot, remove one
SIGUSR1             log the state of the program and of its jobs
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager

from supervisor.service.operator import Operator
from supervisor.service.signals import signal_handlers


def operator_signals(find: Callable[[], Operator | None], hang_up: Callable[[], None]) -> AbstractContextManager[None]:
    """Pass signals to the operator that `find` returns, inside the block; without one they do nothing.

    `hang_up` is called when the terminal of the program is gone.
    """
    terminal = _Terminal()

    def hung_up() -> None:
        if terminal.is_gone:
            hang_up()
        elif operator := find():
            operator.request_reload("SIGHUP")

    def when_there(reaction: Callable[[Operator], object]) -> Callable[[], None]:
        def react() -> None:
            if operator := find():
                reaction(operator)

        return react

    return signal_handlers(
        {
            signal.SIGHUP: hung_up,
            signal.SIGTSTP: when_there(lambda operator: operator.pause_by_signal("SIGTSTP")),
            signal.SIGCONT: when_there(lambda operator: operator.resume_by_signal("SIGCONT")),
            signal.SIGTTIN: when_there(lambda operator: operator.resize("SIGTTIN", +1)),
            signal.SIGTTOU: when_there(lambda operator: operator.resize("SIGTTOU", -1)),
            signal.SIGUSR1: when_there(lambda operator: operator.dump("SIGUSR1")),
        }
    )


class _Terminal:
    """The terminal of the program; its end arrives as SIGHUP as well."""

    def __init__(self) -> None:
        # nohup ignores SIGHUP: the program outlives its terminal then.
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
