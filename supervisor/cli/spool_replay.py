"""`spool replay`: sends the outcomes that wait in the spool to their server."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - for the server's name; root's folders are out of reach once the spool is open
from pathlib import Path

import click

from supervisor.dialects.http.client import Account, Client
from supervisor.exit_code import ExitCode
from supervisor.job_server import AuthRevoked
from supervisor.pool.authorization import Authorization, AuthorizedServer
from supervisor.proxy import Proxy
from supervisor.reporting.replay import MAX_OUTCOME_AGE, Replay, TooOld
from supervisor.reporting.report import Accepted, Answer, Rejected, Reporter, RetryLater
from supervisor.reporting.spool import Spool, SpoolFolder
from supervisor.reporting.spool_format import Destination
from supervisor.stats import Stats
from supervisor.text.duration import format_duration
from supervisor.text.printable import escaped


async def replay(spool: Spool, destination: Destination, token: str, proxy: Proxy | None = None) -> ExitCode:
    """Send once all that waits for a server and project, and print what became of each.

    The exit code says whether anything is left that the server should have.
    """
    account = Account(destination.base_url, destination.project, worker_id="", queues=(), proxy=proxy)
    code = ExitCode.DRAINED
    async with Client(account, token) as client:
        server = AuthorizedServer(client, Authorization(0.0, is_known=True))
        again = Replay(Reporter(server, spool, destination, 0.0, Stats()))
        waiting = await again.waiting()
        if not waiting:
            click.echo(_nothing(spool, destination), err=True)
        for path in waiting:
            try:
                said, is_left = await _sent(again, spool, path)
            except AuthRevoked as revoked:
                click.echo(f"the server refuses the API key: {escaped(str(revoked))}", err=True)
                return ExitCode.CREDENTIAL_REFUSED
            click.echo(f"{path.name}: {escaped(said)}")
            if is_left:
                code = ExitCode.INTERNAL_ERROR
    return code


def _nothing(spool: Spool, destination: Destination) -> str:
    """That there is nothing to be sent; and of what is not, for it may be what was looked for."""
    told = f"nothing waits for the project {destination.project!r} of {destination.base_url}"
    waiting = [each.record.destination for each in spool.find(SpoolFolder.WAITING) if each.record is not None]
    others = {f"{other.project!r} of {other.base_url}" for other in waiting}
    return f"{told}; outcomes wait for {escaped(', '.join(sorted(others)))}" if others else told


async def _sent(again: Replay, spool: Spool, path: Path) -> tuple[str, bool]:
    """What became of an outcome, and whether it is left; raise `AuthRevoked`."""
    try:
        answer = await again.send(path)
    except OSError as error:  # a link, somebody else's file, a disk that is broken
        return f"not sent: it cannot be read: {error.strerror or error}", True
    return _unsent(spool, path) if answer is None else _said(answer)


def _said(answer: Answer | TooOld) -> tuple[str, bool]:
    match answer:
        case Accepted():
            return "delivered", False
        case Rejected(why):
            return f"dropped, the server does not want it: {why}", False
        case RetryLater(why):
            return f"still waiting: {why}", True
        case TooOld():
            age = format_duration(MAX_OUTCOME_AGE)
            return (
                f"not accepted: it is older than {age}, and was set aside in spool/{SpoolFolder.UNDELIVERABLE.value}",
                True,
            )


def _unsent(spool: Spool, path: Path) -> tuple[str, bool]:
    """Why there was nothing to be sent, as far as it can be seen afterwards."""
    if spool.is_locked(path):
        return "not sent: another process has it in hands, such as the service, which sends it itself", True
    if spool.is_damaged(path):
        return f"not sent: it is damaged, and was set aside in spool/{SpoolFolder.DAMAGED.value}", True
    if spool.is_there(path):  # damaged, where nothing can be moved, or let go by those other hands in this instant
        return "not sent: it is still there, and can be tried again", True
    return "not sent: it is there no more, and may have been sent meanwhile", False
