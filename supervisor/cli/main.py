"""The main command group.  Each command reads its options and calls one function.

Heavy modules are imported inside the commands, so that `--help` and `version` answer at once.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Any

import click

from supervisor.cli.account import ACCOUNT_OPTIONS, account, proxy_for
from supervisor.cli.operate import COMMANDS
from supervisor.cli.options import asked, fail, give_up, given_by, home, reads, settle_streams, values_of
from supervisor.cli.spool_group import spool
from supervisor.exit_code import ExitCode
from supervisor.linux import signal_defaults
from supervisor.linux.cpu_limit import available_cpus
from supervisor.settings import resolution as config
from supervisor.settings import value_types as kinds
from supervisor.settings.credential import CredentialSource
from supervisor.settings.loader import SettingsLoader, require_folders
from supervisor.settings.resolution import ConfigError, HostInfo
from supervisor.settings.settings import OPTIONS
from supervisor.settings.working_directory import working_directory
from supervisor.version import __version__

_CHECK_OPTIONS = ("handlers", "import_timeout", "pass_env")
_DEV_OPTIONS = ("workers", "handlers", "import_timeout", "pass_env", "job_memory", "listen", "log_level", "log_format")
_DEV_DEFAULTS: config.CommandLineValues = {"listen": ("127.0.0.1:0",), "log_level": ("debug",)}
"""The status page uses a free port, which the log shows; the debug log shows every job."""
_STANDARD_ERROR = 2
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of writing the output to a full or broken disk.  `click` handles a closed pipe."""


class RunByDefault(click.Group):
    """A group whose default command is `run`, and which reports errors as one sentence and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except OSError as error:
            if error.errno not in _WRITE_ERRORS or error.filename is not None:
                raise
            give_up(sys.stdout)
            fail(f"the output cannot be written: {error.strerror}", ExitCode.INTERNAL_ERROR)
        finally:
            settle_streams()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for option in self.get_params(ctx) for name in option.opts}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            fail(str(error), ExitCode.USAGE)


@click.group(cls=RunByDefault, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="mobius-supervisor %(version)s")
def main() -> None:
    """The Mobius worker for CPU-heavy Python: jobs run in child processes that can always be stopped.

    The default command is `run`: `mobius-supervisor --workers 8` serves jobs with eight child processes.
    `mobius-supervisor run --help` lists its options.
    """
    _fill_standard_streams()
    signal_defaults.restore(keep=signal_defaults.OF_OPERATORS)


def _fill_standard_streams() -> None:
    """Open /dev/null in place of each closed standard stream.

    Otherwise the event loop would get its number, and with it the output of C code; and libuv would abort at exit.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


@main.command()
@asked(*OPTIONS)
def run(**answers: Any) -> None:
    """Claim and run jobs until SIGTERM or Ctrl-C (the default command).

    Durations are written 500ms, 2s, 10m, 1h30m or plain seconds.  SIGTERM or Ctrl-C: finish the running jobs, then
    exit.

    Exit codes: 0 drained, every job ended by itself; 1 internal error; 2 usage or configuration error; 3 no handler
    could be loaded; 4 the server rejected the API key (401, 403); 6 the drain timeout or a second signal interrupted
    jobs; 7 third Ctrl-C.
    """
    from supervisor.linux import syscalls as kernel

    kernel.set_dumpable(False)  # first, so that no child can read the key from the memory of this process
    configuration = SettingsLoader(given_by(answers), os.environ, _machine())
    settings = configuration.read()
    _require_kernel_features()

    import structlog

    from supervisor.logs import log
    from supervisor.logs.redaction import Mask
    from supervisor.service import service

    credential = configuration.source.read()
    mask = Mask([credential.token])
    log.configure(settings.log_level, settings.log_format, mask=mask)
    if credential.warning:
        structlog.get_logger(__name__).warning(credential.warning)
    sys.exit(service.main(settings, configuration.source, mask, configuration.read, configuration.settings_file))


@main.command()
@asked(*_CHECK_OPTIONS)
def check(**answers: Any) -> None:
    """Import the handlers and list them."""
    values = values_of(_CHECK_OPTIONS, answers)
    require_folders(values["handlers"])
    _require_kernel_features()

    from supervisor.cli.check import check_handlers
    from supervisor.logs import log

    log.configure("info", "auto")  # for the output of modules during their import
    sys.exit(check_handlers(values["handlers"], values["import_timeout"], values["pass_env"]))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 picks a free one."
)
@click.option(
    "--db", "database", type=click.Path(path_type=Path, dir_okay=False), help="SQLite file.  [default: in memory]"
)
@click.option("--api-key-file", type=click.Path(path_type=Path), help="Require this key.  [default: accept any key]")
@click.option(
    "--heartbeat-interval",
    metavar="DURATION",
    callback=reads(kinds.POSITIVE_DURATION),
    default="10s",
    show_default=True,
)
@click.option(
    "--lease-ttl",
    metavar="DURATION",
    callback=reads(kinds.POSITIVE_DURATION),
    help="[default: three heartbeat intervals]",
)
@click.option(
    "--faults",
    type=click.Path(path_type=Path),
    help="Script of faults to inject: TOML, or JSON if the name ends with .json.  [default: no faults]",
)
def server(api_key_file: Path | None, faults: Path | None, **limits: Any) -> None:
    """Run only the local development server, until SIGTERM or Ctrl-C."""
    import asyncio

    from supervisor.cli.server import read_faults, serve
    from supervisor.devserver.app import DevServerSettings

    script = read_faults(faults) if faults else None
    source = CredentialSource(api_key_file, {})
    api_key = source.read().token if source.is_given else None
    asyncio.run(serve(DevServerSettings(api_key=api_key, faults=script, **limits), _key_hint(source)))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the server.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port of the server; 0 picks a free one.",
)
@click.option(
    "--db", "database", type=click.Path(path_type=Path, dir_okay=False), help="SQLite file.  [default: in memory]"
)
@asked(*_DEV_OPTIONS, own=_DEV_DEFAULTS)
def dev(host: str, port: int, database: Path | None, **answers: Any) -> None:
    """Run a local server and a supervisor in one process, until Ctrl-C.

    The first Ctrl-C finishes the running jobs, then exits; a second one stops the jobs, with exit code 6.

    Handlers are reloaded when their files change, if the package watchfiles is installed.
    """
    _require_kernel_features()

    from supervisor.cli import dev as development

    given = {**_DEV_DEFAULTS, **given_by(answers)}
    sys.exit(development.main(given, _machine(), host=host, port=port, database=database))


@main.command()
@click.argument("action", callback=reads(kinds.NAME))
@click.option("--params", default="{}", show_default=True, metavar="JSON", help="Parameters of the job, a JSON object.")
@click.option("--follow", is_flag=True, help="Show the events of the run, then its result.")
@click.option("--queue", metavar="NAME", callback=reads(kinds.NAME), help="Queue of the run.  [default: the server's]")
@asked(*ACCOUNT_OPTIONS)
def submit(action: str, params: str, queue: str | None, *, follow: bool, **answers: Any) -> None:
    """Start a run of one step.

    With --follow, show its events; exit with 0 if it completed and with 1 if it failed.
    """
    import asyncio

    from supervisor.cli.submit import SubmitError, Target, read_parameters
    from supervisor.cli.submit import submit as start

    parameters = read_parameters(params)
    values, credential = account(ACCOUNT_OPTIONS, answers)
    target = Target(values["base_url"], values["project"], credential.token, proxy_for(values))
    try:
        sys.exit(asyncio.run(start(target, action, parameters, queue=queue, follow=follow)))
    except SubmitError as error:
        fail(str(error), error.code)


@main.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=".",
    help="Folder that contains handlers/.  [default: current]",
)
@click.option("--template", "is_template", is_flag=True, help="Print the template unit for several instances.")
@click.option("--delegate", "is_drop_in", is_flag=True, help="Print the drop-in for control groups instead.")
def unit(directory: Path, *, is_template: bool, is_drop_in: bool) -> None:
    """Print the systemd unit for this installation.

    Save it as /etc/systemd/system/mobius-supervisor.service; in the same folder, save the output of --template as
    mobius-supervisor@.service and that of --delegate as mobius-supervisor.service.d/delegate.conf.
    """
    from supervisor.cli import systemd_unit as units

    if is_template and is_drop_in:
        raise ConfigError("--template and --delegate exclude each other: print one after the other")
    if is_drop_in:
        click.echo(units.delegation(), nl=False)
        return
    # Links are not resolved: the service must follow a link to the current release at each start and reload.
    folder = (working_directory(os.environ) / directory).absolute()
    folder = folder.resolve() if ".." in folder.parts else folder
    installation = units.Installation(Path(sysconfig.get_path("scripts")) / units.NAME, folder)
    for path in installation.hidden_paths:
        click.echo(f"Warning: the service will not see {path}: homes and /tmp are hidden, /opt is a place", err=True)
    try:
        require_folders([installation.folder / "handlers"])
    except ConfigError:
        click.echo(
            f"Warning: there is no folder {installation.folder / 'handlers'}: name its place by --directory", err=True
        )
    click.echo((units.template if is_template else units.service)(installation), nl=False)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"mobius-supervisor {__version__}")


for command in (*COMMANDS, spool):
    main.add_command(command)


def _key_hint(source: CredentialSource) -> str:
    """Return the assignment that gives a worker a key that the development server accepts."""
    if source.file is not None:
        return f"MOBIUS_SUPERVISOR_API_KEY_FILE={source.file.absolute()}"
    return "MOBIUS_API_KEY=…" if source.is_given else "MOBIUS_API_KEY=mbx_local"


def _require_kernel_features() -> None:
    from supervisor.linux import kernel_features

    if sentence := kernel_features.missing():
        raise ConfigError(sentence)


def _machine() -> HostInfo:
    return HostInfo(
        cpus=available_cpus(),
        host=socket.gethostname(),
        pid=os.getpid(),
        random=secrets.token_hex(3),
        home=home(),
    )
