"""What an operator can ask of the running program, whoever passes it on: a signal, or a command over the socket."""

from __future__ import annotations

from typing import Protocol

from supervisor.status import Status


class CommandRejected(Exception):
    """It cannot be done; the text is one sentence for the operator."""


class OperatorApi(Protocol):
    """`by` names who asks, for the log and for reports: "SIGTSTP", "root (uid 0) over the control socket"."""

    async def status(self) -> Status:
        """Everything at this instant."""

    def glance(self) -> Status:
        """As `status`, at once: what children use, and the spool, are as they were when somebody looked last."""

    async def stack(self, job_id: str) -> str:
        """The Python stack of the job's child as it is now; raise `Refused` when no such job runs here.

        `job_id` is an id, JOB#ATTEMPT, or the beginning of one id; so it is for `cancel`.
        """

    def cancel(self, job_id: str, by: str) -> None:
        """Have the job stopped and reported as `Cancelled`; raise `Refused` when it does not run here."""

    def pause(self, by: str) -> None:
        """Claim nothing new until `resume`."""

    def resume(self, by: str) -> None:
        """Claim again, also after SIGTSTP."""

    def drain(self, by: str) -> None:
        """Claim nothing new, finish what runs, end the program: as by SIGTERM."""

    async def reload(self, by: str) -> None:
        """Take over new handlers and settings, without dropping a job; raise `Refused` when the old ones stay."""
