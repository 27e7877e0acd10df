"""The `spool` command group.  Each command imports its function when it runs.

Tested by tests/flows/test_spool.py.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from supervisor.cli.account import ACCOUNT_OPTIONS, account, proxy_for
from supervisor.cli.options import asked, home, values_of

if TYPE_CHECKING:
    from supervisor.reporting.spool import Spool

_REPLAY_OPTIONS = (*ACCOUNT_OPTIONS, "state_dir")


@click.group()
def spool() -> None:
    """Manage outcomes on disk that the server has not accepted yet.

    The commands also work while the service runs.  ID is a job id, JOB#ATTEMPT, or a file name.
    """


@spool.command("ls")
@asked("state_dir")
def spool_ls(**answers: Any) -> None:
    """List outcomes, including undeliverable and damaged ones."""
    from supervisor.cli import spool as inventory

    path = _state_dir(answers)
    others = inventory.other_spools(path, _homes())  # first: root loses access when it becomes the owner of `path`
    inventory.list_all(inventory.spool_in(path, os.environ), others)


@spool.command("show")
@click.argument("name", metavar="ID")
@asked("state_dir")
def spool_show(name: str, **answers: Any) -> None:
    """Show the job of an outcome and the beginning of its result."""
    from supervisor.cli import spool as inventory

    inventory.show(_spool(answers), name)


@spool.command("drop")
@click.argument("name", metavar="ID")
@click.option("--yes", "is_sure", is_flag=True, help="Confirm: this cannot be undone.")
@asked("state_dir")
def spool_drop(name: str, *, is_sure: bool, **answers: Any) -> None:
    """Delete an outcome permanently, without sending it to the server."""
    from supervisor.cli import spool as inventory

    inventory.drop(_spool(answers), name, is_sure=is_sure)


@spool.command("replay")
@asked(*_REPLAY_OPTIONS)
def spool_replay(**answers: Any) -> None:
    """Send waiting outcomes now.

    Sends the outcomes for this server and project; exit with 0 if none of them remains.
    """
    import asyncio

    from supervisor.cli import spool_replay
    from supervisor.reporting.spool_format import Destination

    values, credential = account(_REPLAY_OPTIONS, answers)
    destination, proxy = Destination(values["base_url"], values["project"]), proxy_for(values)
    # The spool is opened last: root becomes its owner then, who may not read root's key or import from root's home.
    sys.exit(asyncio.run(spool_replay.replay(_spool(answers), destination, credential.token, proxy)))


def _spool(answers: Mapping[str, Any]) -> Spool:
    from supervisor.cli.spool import spool_in

    return spool_in(_state_dir(answers), os.environ)


def _state_dir(answers: Mapping[str, Any]) -> Path:
    from supervisor.cli.spool import state_dir_of
    from supervisor.logs import log

    log.configure("error", "auto")  # for errors about damaged files
    given: Path | None = values_of(["state_dir"], answers)["state_dir"]
    return given or state_dir_of(os.environ, home())


def _homes() -> list[Path]:
    """Return the homes of all users if this is root, who alone can read them."""
    return [Path(account.pw_dir) for account in pwd.getpwall()] if os.geteuid() == 0 else []
