"""What the program's exit codes mean; the unit file and the README repeat them.  Pure."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """How the program ended, for systemd and for scripts.  5 is kept free for a conflict between instances."""

    DRAINED = 0
    INTERNAL_ERROR = 1
    USAGE = 2
    NO_HANDLER = 3
    CREDENTIAL_REFUSED = 4
    JOBS_CUT = 6
    THIRD_INTERRUPT = 7
