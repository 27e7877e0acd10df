"""`spool replay`: send once what waits in the spool; also while the service runs, whose own hands are left alone."""

from __future__ import annotations

import click

from supervisor.api.client import Account, Client
from supervisor.exit_code import ExitCode
from supervisor.ledger import Ledger
from supervisor.reporting.replay import Replay
from supervisor.reporting.report import Accepted, Answer, NotYet, Refused, Reporter
from supervisor.reporting.spool import Shelf, Spool
from supervisor.reporting.spoolfile import Destination
from supervisor.server import AuthRevoked
from supervisor.text.printable import escaped


async def replay(spool: Spool, destination: Destination, token: str) -> ExitCode:
    """Send once all that waits for a server and project, and print what became of each."""
    account = Account(destination.base_url, destination.project, worker_id="", queues=())
    code = ExitCode.DRAINED
    async with Client(account, token) as client:
        again = Replay(Reporter(client, spool, destination, 0.0, Ledger()))
        waiting = await again.waiting()
        if not waiting:
            click.echo(_nothing(spool, destination), err=True)
        for path in waiting:
            try:
                answer = await again.send(path)
            except AuthRevoked as revoked:
                click.echo(f"the server refuses the API key: {escaped(str(revoked))}", err=True)
                return ExitCode.CREDENTIAL_REFUSED
            click.echo(f"{path.name}: {escaped(_said(answer))}")
            if isinstance(answer, NotYet):
                code = ExitCode.INTERNAL_ERROR
    return code


def _nothing(spool: Spool, destination: Destination) -> str:
    """That there is nothing to be sent; and of what is not, for it may be what was looked for."""
    told = f"nothing waits for the project {destination.project!r} of {destination.base_url}"
    waiting = [each.note.destination for each in spool.find(Shelf.WAITING) if each.note is not None]
    others = {f"{other.project!r} of {other.base_url}" for other in waiting}
    return f"{told}; outcomes wait for {escaped(', '.join(sorted(others)))}" if others else told


def _said(answer: Answer | None) -> str:
    match answer:
        case Accepted():
            return "delivered"
        case Refused(why):
            return f"dropped, the server does not want it: {why}"
        case NotYet(why):
            return f"still waiting: {why}"
        case None:
            return "not sent: in other hands, damaged, or too old"
