"""Exit codes of the program, with their meanings for the reference; the unit file repeats them.  Pure."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Reason for the end of the program, for systemd and scripts.  5 is reserved for a conflict between instances."""

    DRAINED = 0
    """Drained: every job ended by itself. Outcomes that the server has not accepted are in the spool."""
    INTERNAL_ERROR = 1
    """Internal error. `submit`: the run failed, or the server cannot be reached. `status`, `cancel` and the other
    operator commands: no supervisor runs here, or it rejected the command. `spool replay`: outcomes are left that
    it should have sent.
    """
    USAGE = 2
    """Wrong usage or configuration. Operator commands: several supervisors run here, and neither `--worker-id` nor
    `--socket` names one.
    """
    NO_HANDLER = 3
    """No handler could be loaded. `check`: at least one module could not be loaded."""
    CREDENTIAL_REFUSED = 4
    """The server rejected the API key (401, 403). For a key that it had accepted before: during all of
    `--auth-timeout`.
    """
    JOBS_CUT = 6
    """The drain timeout, or a second signal, interrupted running jobs."""
    THIRD_INTERRUPT = 7
    """A third Ctrl-C killed the running jobs."""
