"""`spool replay`: send once what waits in the spool; also while the service runs, whose own hands are left alone."""

from __future__ import annotations

import click

from supervisor.api.client import Account, Client
from supervisor.exit_code import ExitCode
from supervisor.ledger import Ledger
from supervisor.printable import escaped
from supervisor.replay import Replay
from supervisor.report import Accepted, Answer, NotYet, Refused, Reporter
from supervisor.server import AuthRevoked
from supervisor.spool import Spool
from supervisor.spoolfile import Destination


async def replay(spool: Spool, destination: Destination, token: str) -> ExitCode:
    """Send once all that waits for a server and project, and print what became of each."""
    account = Account(destination.base_url, destination.project, worker_id="", queues=())
    code = ExitCode.DRAINED
    async with Client(account, token) as client:
        again = Replay(Reporter(client, spool, destination, 0.0, Ledger()))
        for path in await again.waiting():
            try:
                answer = await again.send(path)
            except AuthRevoked as revoked:
                click.echo(f"the server refuses the API key: {escaped(str(revoked))}", err=True)
                return ExitCode.CREDENTIAL_REFUSED
            click.echo(f"{path.name}: {escaped(_said(answer))}")
            if isinstance(answer, NotYet):
                code = ExitCode.INTERNAL_ERROR
    return code


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
