"""Command-line options built from `settings.OPTIONS`, their values, and the output helpers of all commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from supervisor.exit_code import ExitCode
from supervisor.settings import resolution as config
from supervisor.settings.option import Option
from supervisor.settings.settings import OPTIONS
from supervisor.settings.value_types import ValueType
from supervisor.text.printable import escaped


def fail(message: str, code: ExitCode) -> NoReturn:
    """Print one sentence and exit with `code`."""
    with suppress(OSError):  # exit with the code even if standard error cannot be written
        click.echo(f"Error: {escaped(message)}", err=True)
    sys.exit(code)


def announce(message: str) -> None:
    """Print a message of a server, which continues to serve if the reader of its output has exited."""
    with suppress(BrokenPipeError):
        click.echo(message)


def give_up(stream: TextIO) -> None:
    """Redirect a stream to /dev/null.  Python would write its buffer again at exit, and fail with a traceback."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def settle_streams() -> None:
    """Flush the standard streams and redirect those that fail, so that they do not change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:  # a pipe without a reader or a full disk
            give_up(stream)
        except ValueError:  # the stream is closed
            continue


def home() -> Path | None:
    """Return the home of this user; None if neither the environment nor the user database has one."""
    try:
        return Path("~").expanduser()
    except RuntimeError:
        return None


def reads(kind: ValueType) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return a click callback that parses an option of one command, which has no environment variable."""

    def callback(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else kind.read(text)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, parameter) from error

    return callback


def asked(
    *names: str, own: config.CommandLineValues | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the options of the settings `names` to a command.

    `own` are the defaults of a command that reads no setting from the environment; None for all others.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            option = OPTIONS[name]
            command = _click_option(option, _help(option) if own is None else _own_help(option, own))(command)
        return command

    return decorate


def _click_option(option: Option, words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    # click passes on only the command line; `config` reads the environment, so that its errors name the right source.
    if option.kind.is_switch:
        return click.option(option.flag, option.key, is_flag=True, default=None, help=words)
    return click.option(
        option.flag, option.key, multiple=option.kind.is_repeatable, metavar=option.kind.metavar, help=words
    )


def _help(option: Option) -> str:
    return f"{option.help}  [{_default(option)}; env: {', '.join(option.variables)}]"


def _own_help(option: Option, own: config.CommandLineValues) -> str:
    texts = own.get(option.key)
    default = f"default: {', '.join(texts)}" if texts else _default(option)
    return f"{option.help}  [{default}]"


def _default(option: Option) -> str:
    return "required" if option.is_required else f"default: {option.shown_default or option.default}"


def values_of(names: Iterable[str], answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the settings `names` from the command line or the environment; raise `ConfigError`."""
    return config.read_values(names, given_by(answers), os.environ)


def given_by(answers: Mapping[str, Any]) -> config.CommandLineValues:
    """Normalize click's values: a switch becomes "1", a single text a tuple of one; None is omitted."""
    texts = {key: "1" if answer is True else answer for key, answer in answers.items()}
    return {key: (text,) if isinstance(text, str) else text for key, text in texts.items() if text is not None}
