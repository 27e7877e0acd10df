"""The orders of operators: what the control socket and the page may ask of the running program.

`supervisor.service.operator` implements them.
"""

from __future__ import annotations

from typing import Protocol

from supervisor.status import Status


class CommandRejected(Exception):
    """The program cannot carry out the order; the text is one sentence for the operator."""


class OperatorApi(Protocol):
    """`by` names the requester in logs and reports: "root (uid 0) over the control socket"."""

    async def status(self) -> Status:
        """Return the current state of everything."""

    def glance(self) -> Status:
        """Return `status` without waiting: usage of children and spool are those of the last snapshot."""

    async def stack(self, job_id: str) -> str:
        """Return the current Python stack of the job's child; raise `CommandRejected` if no such job runs here.

        `job_id` is an id, JOB#ATTEMPT, or the beginning of one id only; `cancel` takes the same.
        """

    def cancel(self, job_id: str, by: str) -> None:
        """Stop the job, and report it as `Cancelled`; raise `CommandRejected` if no such job runs here."""

    def pause(self, by: str) -> None:
        """Block claims until `resume`."""

    def resume(self, by: str) -> None:
        """Unblock claims, also after SIGTSTP."""

    def drain(self, by: str) -> None:
        """Block claims, finish the jobs that run, end the program: as by SIGTERM."""

    async def reload(self, by: str) -> None:
        """Load new handlers and settings while jobs run; raise `CommandRejected` if the old ones stay."""
