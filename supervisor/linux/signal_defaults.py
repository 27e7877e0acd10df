"""The signal mask and the dispositions that Python programs expect, whatever this process was started with.

Blocked and ignored signals survive fork and exec (signal(7)): a parent that ignores SIGCHLD takes exit codes away from
every `subprocess.run` below it, and one that blocks SIGTERM makes every program below it deaf.
"""

from __future__ import annotations

import signal
from collections.abc import Collection

OF_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
"""What Python itself ignores, and `subprocess` restores in the programs that it starts."""
OF_OPERATORS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT})
"""What `nohup`, and shells for what is behind a `&`, have a program ignore on purpose.  Only the parent keeps them."""


def restore(*, keep: Collection[int] = ()) -> None:
    """Unblock all signals; restore all that are ignored, except those in `keep` and those of Python."""
    for number in signal.valid_signals() - OF_PYTHON - frozenset(keep):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    # Last: what is pending is delivered now.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def restore_after_imports() -> None:
    """Undo what would take exit codes and stops away from every job; other handlers are a module's own business."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
