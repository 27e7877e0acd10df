"""The `spool replay` command: sends the waiting outcomes to their server."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - for the server's name; not importable from root's folders once the spool is open
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
    """Send each waiting outcome of a server and project once, and print the result of each.

    The exit code shows whether an outcome remains to be sent.
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
                result, is_left = await _send(again, spool, path)
            except AuthRevoked as revoked:
                click.echo(f"the server refuses the API key: {escaped(str(revoked))}", err=True)
                return ExitCode.CREDENTIAL_REFUSED
            click.echo(f"{path.name}: {escaped(result)}")
            if is_left:
                code = ExitCode.INTERNAL_ERROR
    return code


def _nothing(spool: Spool, destination: Destination) -> str:
    """Return the message for an empty replay; it lists the outcomes for other servers, in case the user meant those."""
    message = f"nothing waits for the project {destination.project!r} of {destination.base_url}"
    waiting = [each.record.destination for each in spool.find(SpoolFolder.WAITING) if each.record is not None]
    others = {f"{other.project!r} of {other.base_url}" for other in waiting}
    return f"{message}; outcomes wait for {escaped(', '.join(sorted(others)))}" if others else message


async def _send(again: Replay, spool: Spool, path: Path) -> tuple[str, bool]:
    """Send an outcome; return the result for the user and whether the outcome remains.  Raise `AuthRevoked`."""
    try:
        answer = await again.send(path)
    except OSError as error:  # a link, a file of another user, or a broken disk
        return f"not sent: it cannot be read: {error.strerror or error}", True
    return _unsent(spool, path) if answer is None else _describe(answer)


def _describe(answer: Answer | TooOld) -> tuple[str, bool]:
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
    """Return why an outcome was not sent, judged from the state of its file afterwards."""
    if spool.is_locked(path):
        return "not sent: another process has it in hands, such as the service, which sends it itself", True
    if spool.is_damaged(path):
        return f"not sent: it is damaged, and was set aside in spool/{SpoolFolder.DAMAGED.value}", True
    if spool.is_there(path):  # damaged in a folder that is not writable, or unlocked by the other process just now
        return "not sent: it is still there, and can be tried again", True
    return "not sent: it is there no more, and may have been sent meanwhile", False
