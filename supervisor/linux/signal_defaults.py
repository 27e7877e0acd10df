"""Restores the signal mask and the dispositions that Python programs expect.

Blocked and ignored signals survive fork and exec (signal(7)).  If a parent ignores SIGCHLD, `subprocess.run` loses exit
codes in every descendant; if it blocks SIGTERM, no descendant can be terminated.
"""

from __future__ import annotations

import signal
from collections.abc import Collection

OF_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
"""Signals that Python itself ignores, and that `subprocess` restores in the programs that it starts."""
OF_OPERATORS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT})
"""Signals that `nohup` and shells (for `command &`) ignore on purpose.  Only the parent keeps them ignored."""


def restore(*, keep: Collection[int] = ()) -> None:
    """Unblock all signals; restore the default of ignored signals, except those in `keep` and `OF_PYTHON`."""
    for number in signal.valid_signals() - OF_PYTHON - frozenset(keep):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    # Last: pending signals are delivered now, with the restored dispositions.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def restore_after_imports() -> None:
    """Restore SIGCHLD and the signal mask, which every job needs; keep other handlers that modules installed."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
