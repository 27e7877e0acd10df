"""Exit codes of the program; the unit file and the README repeat them.  Pure."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Reason for the end of the program, for systemd and scripts.  5 is reserved for a conflict between instances."""

    DRAINED = 0
    INTERNAL_ERROR = 1
    USAGE = 2
    NO_HANDLER = 3
    CREDENTIAL_REFUSED = 4
    JOBS_CUT = 6
    THIRD_INTERRUPT = 7
