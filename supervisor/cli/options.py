"""How commands ask for settings: options made from `settings.OPTIONS`, and the values that were given for them."""

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
    """End the command with one sentence."""
    with suppress(OSError):  # the exit code counts, also if standard error takes nothing
        click.echo(f"Error: {escaped(message)}", err=True)
    sys.exit(code)


def announce(message: str) -> None:
    """Print what a server has to say; it goes on serving if the reader of its output has left."""
    with suppress(BrokenPipeError):
        click.echo(message)


def give_up(stream: TextIO) -> None:
    """Write nothing more: at the end of the program what still waits would be tried again, with a traceback."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def settle_streams() -> None:
    """Give up the standard streams that take nothing any more, so that they do not change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:  # the reader of a pipe is gone, the disk is full
            give_up(stream)
        except ValueError:  # it is closed
            continue


def home() -> Path | None:
    """Where this user is at home; None when neither the environment nor the list of users says."""
    try:
        return Path("~").expanduser()
    except RuntimeError:
        return None


def reads(kind: ValueType) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return what reads an option that belongs to one command only and has no environment name."""

    def callback(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else kind.read(text)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, parameter) from error

    return callback


def asked(
    *names: str, own: config.CommandLineValues | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of the settings `names`.

    `own` are the defaults of a command that reads no setting from the environment; None for all others.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            option = OPTIONS[name]
            command = _click_option(option, _help(option) if own is None else _own_help(option, own))(command)
        return command

    return decorate


def _click_option(option: Option, words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    # click passes on what was typed and no more: `config` reads the environment, to say which of them was wrong.
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
    """What was given for the settings `names`, on the command line or in the environment; raise `ConfigError`."""
    return config.read_values(names, given_by(answers), os.environ)


def given_by(answers: Mapping[str, Any]) -> config.CommandLineValues:
    """Put click's answers into one form: a switch is "1", a single text a tuple of one, None and () are left out."""
    texts = {key: "1" if answer is True else answer for key, answer in answers.items()}
    return {key: (text,) if isinstance(text, str) else text for key, text in texts.items() if text is not None}
