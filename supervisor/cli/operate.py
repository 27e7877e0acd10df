"""The commands that inspect and control the running program.  They import neither the server's client nor handlers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from supervisor.cli.options import asked, fail, given_by, home, reads, values_of
from supervisor.exit_code import ExitCode
from supervisor.settings import resolution as config
from supervisor.settings import value_types as kinds
from supervisor.settings.resolution import ConfigError
from supervisor.text.printable import escaped
from supervisor.version import __version__

_PLACE_OPTIONS = ("socket", "worker_id", "state_dir")
_places = asked(*_PLACE_OPTIONS)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the whole status as JSON.")
@click.option("--watch", is_flag=True, help="Refresh every second; needs the package rich.")
@_places
def status(*, as_json: bool, watch: bool, **answers: Any) -> None:
    """Show the status of the running supervisor."""
    from supervisor.control.client import call

    if as_json and watch:
        raise ConfigError("--json and --watch exclude each other; GET /events streams JSON")
    with _errors_reported():
        path = _socket(answers)
        if as_json:
            click.echo(escaped(call(path, "GET", "/status.json").decode()))  # escaped JSON is still JSON
            return

        def look(room: os.terminal_size | None = None) -> str:
            import msgspec

            from supervisor.cli.status_table import table_of
            from supervisor.control.client import ControlError
            from supervisor.status import Status

            try:
                return table_of(msgspec.json.decode(call(path, "GET", "/status.json"), type=Status), room)
            except msgspec.DecodeError as error:
                raise ControlError(
                    f"the supervisor at {path} is of another version than this command ({__version__}), which cannot "
                    f"read its status ({error}); --json shows it as it is"
                ) from error

        if watch:
            _watch(look)
        else:
            click.echo(look(), nl=False)


@click.command()
@click.argument("job_id", metavar="JOB", callback=reads(kinds.NAME))
@_places
def stack(job_id: str, **answers: Any) -> None:
    """Show the Python stack of a running job, also inside a C call.

    JOB is a job id, JOB#ATTEMPT, or a unique prefix of an id with at least 8 characters.
    """
    import json

    reply = json.loads(_ask(answers, "GET", f"/jobs/{quote(job_id, safe='')}/stack"))
    click.echo("\n".join(map(escaped, reply["stack"].splitlines())))


@click.command()
@click.argument("job_id", metavar="JOB", callback=reads(kinds.NAME))
@_places
def cancel(job_id: str, **answers: Any) -> None:
    """Stop a running job and report it as `Cancelled`.

    JOB is a job id, JOB#ATTEMPT, or a unique prefix of an id with at least 8 characters.
    """
    _ask(answers, "POST", f"/jobs/{quote(job_id, safe='')}/cancel")
    click.echo(f"{job_id} is asked to stop")


@click.command()
@_places
def pause(**answers: Any) -> None:
    """Stop claiming jobs until `resume`; running jobs continue.

    A claim that is already open may still return a job, which is run.
    """
    _ask(answers, "POST", "/pause")
    click.echo("paused: nothing new is claimed; a claim that is open already may still bring a job")


@click.command()
@_places
def resume(**answers: Any) -> None:
    """Claim jobs again."""
    _ask(answers, "POST", "/resume")
    click.echo("resumed: jobs are claimed again")


@click.command()
@_places
def drain(**answers: Any) -> None:
    """Stop claiming jobs, finish the running ones, then exit: as SIGTERM."""
    _ask(answers, "POST", "/drain")
    click.echo("draining: it ends when its jobs have")


@click.command()
@click.option(
    "--timeout",
    metavar="DURATION",
    callback=reads(kinds.POSITIVE_DURATION),
    default="5m",
    show_default=True,
    help="How long to wait for the reload.",
)
@_places
def reload(timeout: float, **answers: Any) -> None:
    """Load handlers and settings again; running jobs continue.

    If loading fails, the old ones stay in use, the reason is printed, and the exit code is 1.
    """
    _ask(answers, "POST", "/reload", timeout=timeout, meanwhile="; the reload goes on")
    click.echo("reloaded")


COMMANDS = (status, stack, cancel, pause, resume, drain, reload)


def _ask(answers: dict[str, Any], method: str, target: str, **options: Any) -> bytes:
    from supervisor.control.client import call

    with _errors_reported():
        return call(_socket(answers), method, target, **options)
    raise AssertionError("the block above returns or ends the program")


def _socket(answers: dict[str, Any]) -> Path:
    """Return the given socket, or the socket of the only running program."""
    from supervisor.control.socket_path import find_socket

    given = config.read_values(_PLACE_OPTIONS, given_by(answers), os.environ, _file_values())
    if given["socket"] is not None:
        path: Path = given["socket"]
        return path
    state_dir = given["state_dir"] or config.default_state_dir(os.environ, home())
    return find_socket(os.environ, state_dir, given["worker_id"])


def _file_values() -> config.FileValues:
    """Return the values of the settings file of the running program; none if the file cannot be read."""
    from supervisor.settings.toml_file import read_settings_file

    path: Path | None = values_of(["config"], {})["config"]
    if path is None:
        return config.NO_FILE_VALUES
    try:
        return read_settings_file(path)
    except ConfigError:  # the running program uses an older version of the file; a reload reports the error
        return config.NO_FILE_VALUES


@contextmanager
def _errors_reported() -> Iterator[None]:
    """Report errors as one sentence and an exit code.  The main group reports `ConfigError`."""
    from supervisor.control.client import ControlError
    from supervisor.control.socket_path import NotRunning

    try:
        yield
    except (NotRunning, ControlError) as error:
        fail(str(error), ExitCode.INTERNAL_ERROR)


def _watch(look: Callable[[os.terminal_size | None], str]) -> None:
    try:
        from supervisor.cli.status_watch import watch
    except ImportError:
        raise ConfigError("--watch needs the package rich: pip install 'mobius-supervisor[watch]'") from None
    watch(look)
