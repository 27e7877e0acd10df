"""The commands that look at the running program and steer it.  They load neither its client nor any handler."""

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
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
@click.option("--watch", is_flag=True, help="Show it anew every second; needs the package rich.")
@_places
def status(*, as_json: bool, watch: bool, **answers: Any) -> None:
    """Show what the running supervisor is doing."""
    from supervisor.control.client import call

    if as_json and watch:
        raise ConfigError("--json and --watch exclude each other; GET /events streams JSON")
    with _one_sentence():
        path = _socket(answers)
        if as_json:
            click.echo(escaped(call(path, "GET", "/status.json").decode()))  # it is JSON still
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
                    f"the supervisor at {path} is of another version than this command, {__version__}: what it says is "
                    f"not understood ({error}); --json shows it as it is"
                ) from error

        if watch:
            _watch(look)
        else:
            click.echo(look(), nl=False)


@click.command()
@click.argument("job_id", metavar="JOB", callback=reads(kinds.NAME))
@_places
def stack(job_id: str, **answers: Any) -> None:
    """Show the Python stack of a running job.

    Also from inside a C call.  JOB is its id, JOB#ATTEMPT, or at least 8 characters with which only its id begins.
    """
    import json

    told = json.loads(_ask(answers, "GET", f"/jobs/{quote(job_id, safe='')}/stack"))
    click.echo("\n".join(map(escaped, told["stack"].splitlines())))


@click.command()
@click.argument("job_id", metavar="JOB", callback=reads(kinds.NAME))
@_places
def cancel(job_id: str, **answers: Any) -> None:
    """Stop a running job; it is reported as `Cancelled`.

    JOB is its id, JOB#ATTEMPT, or at least 8 characters with which only its id begins.
    """
    _ask(answers, "POST", f"/jobs/{quote(job_id, safe='')}/cancel")
    click.echo(f"{job_id} is asked to stop")


@click.command()
@_places
def pause(**answers: Any) -> None:
    """Claim nothing new until `resume`; what runs goes on.

    A claim that is open already may still bring a job: it is run.
    """
    _ask(answers, "POST", "/pause")
    click.echo("paused: nothing new is claimed; a claim that is open already may still bring a job")


@click.command()
@_places
def resume(**answers: Any) -> None:
    """Claim again."""
    _ask(answers, "POST", "/resume")
    click.echo("resumed: jobs are claimed again")


@click.command()
@_places
def drain(**answers: Any) -> None:
    """Claim nothing new, finish what runs, end the program: as SIGTERM."""
    _ask(answers, "POST", "/drain")
    click.echo("draining: it ends when its jobs have")


@click.command()
@click.option(
    "--timeout",
    metavar="DURATION",
    callback=reads(kinds.POSITIVE_DURATION),
    default="5m",
    show_default=True,
    help="How long to wait for the outcome.",
)
@_places
def reload(timeout: float, **answers: Any) -> None:
    """Load handlers and settings anew; no job is dropped.

    When they cannot be loaded the old ones stay: the reason is printed, and the exit code is 1.
    """
    _ask(answers, "POST", "/reload", timeout=timeout, meanwhile="; the reload goes on")
    click.echo("reloaded")


COMMANDS = (status, stack, cancel, pause, resume, drain, reload)


def _ask(answers: dict[str, Any], method: str, target: str, **options: Any) -> bytes:
    from supervisor.control.client import call

    with _one_sentence():
        return call(_socket(answers), method, target, **options)
    raise AssertionError("the block above returns or ends the program")


def _socket(answers: dict[str, Any]) -> Path:
    """The socket that is named, or that of the one program that runs here."""
    from supervisor.control.socket_path import find_socket

    given = config.read_values(_PLACE_OPTIONS, given_by(answers), os.environ, _written())
    if given["socket"] is not None:
        path: Path = given["socket"]
        return path
    state_dir = given["state_dir"] or config.default_state_dir(os.environ, home())
    return find_socket(os.environ, state_dir, given["worker_id"])


def _written() -> config.FileValues:
    """What the settings file of the running program says of its place; nothing if the file cannot be read."""
    from supervisor.settings.toml_file import read_settings_file

    path: Path | None = values_of(["config"], {})["config"]
    if path is None:
        return config.NO_FILE_VALUES
    try:
        return read_settings_file(path)
    except ConfigError:  # the program that runs has another one; it is for a reload to say what is wrong
        return config.NO_FILE_VALUES


@contextmanager
def _one_sentence() -> Iterator[None]:
    """What goes wrong is one sentence and an exit code; `ConfigError` is for the group of all commands to say."""
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
