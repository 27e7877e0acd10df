"""The command line: reads what the user gave, builds, calls one function.  Nothing heavy is imported before it is
needed, so that `--help` and `version` answer at once.
"""

from __future__ import annotations

import errno
import os
import pwd
import secrets
import socket
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from supervisor.cli.operate import COMMANDS
from supervisor.cli.options import asked, fail, give_up, given_by, home, reads, settle_streams, values_of
from supervisor.exit_code import ExitCode
from supervisor.linux import signal_defaults
from supervisor.linux.cpu_limit import available_cpus
from supervisor.proxy import Proxy
from supervisor.settings import resolution as config
from supervisor.settings import value_types as kinds
from supervisor.settings.credential import Credential, CredentialSource
from supervisor.settings.loader import SettingsLoader, require_folders
from supervisor.settings.proxy_source import proxy_to
from supervisor.settings.resolution import ConfigError, HostInfo
from supervisor.settings.settings import OPTIONS
from supervisor.settings.working_directory import working_directory
from supervisor.version import __version__

if TYPE_CHECKING:
    from supervisor.reporting.spool import Spool

_CHECK_OPTIONS = ("handlers", "import_timeout", "pass_env")
_DEV_OPTIONS = ("workers", "handlers", "import_timeout", "pass_env", "job_memory", "listen", "log_level", "log_format")
_DEV_DEFAULTS: config.CommandLineValues = {"listen": ("127.0.0.1:0",), "log_level": ("debug",)}
"""The status page is at a free port, which the log names; the log shows every job."""
_SUBMIT_OPTIONS = ("base_url", "project", "api_key_file", "allow_http", "proxy")
_STANDARD_ERROR = 2
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What becomes of a command's output on a disk that is full, or broken; a reader that is gone is `click`'s to see."""
_REPLAY_OPTIONS = (*_SUBMIT_OPTIONS, "state_dir")


class RunByDefault(click.Group):
    """A group whose command is `run` when none is named; what goes wrong is one sentence and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except OSError as error:
            if error.errno not in _NO_ROOM or error.filename is not None:
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

    Without a command it is `run`: `mobius-supervisor --workers 8` serves jobs with eight children, and
    `mobius-supervisor run --help` lists its options.
    """
    _fill_standard_streams()
    signal_defaults.restore(keep=signal_defaults.OF_OPERATORS)


def _fill_standard_streams() -> None:
    """Have /dev/null where one is closed.

    The event loop would be given its number, and with that what C code prints; and libuv would abort at the end.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


@main.command()
@asked(*OPTIONS)
def run(**answers: Any) -> None:
    """Serve jobs until told to stop (the default command).

    Durations are written 500ms, 2s, 10m, 1h30m or plain seconds.  SIGTERM or Ctrl-C: finish what runs, then leave.

    Exit codes: 0 drained: every job ended by itself; 1 internal error; 2 usage or configuration; 3 no handler could be
    loaded; 4 the server refused the API key (401, 403); 6 the drain timeout, or a second signal, cut jobs; 7 third
    Ctrl-C.
    """
    from supervisor.linux import syscalls as kernel

    kernel.set_dumpable(False)  # first of all: from here on a child cannot read the key from our memory
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

    log.configure("info", "auto")  # what the modules print while they are imported
    sys.exit(check_handlers(values["handlers"], values["import_timeout"], values["pass_env"]))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 picks a free one."
)
@click.option(
    "--db", "database", type=click.Path(path_type=Path, dir_okay=False), help="SQLite file.  [default: in memory]"
)
@click.option("--api-key-file", type=click.Path(path_type=Path), help="Demand this key.  [default: any key will do]")
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
    help="What shall go wrong: a script of faults, TOML (or JSON, if it is named so).  [default: nothing]",
)
def server(api_key_file: Path | None, faults: Path | None, **limits: Any) -> None:
    """Run the local development server alone, until told to stop."""
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
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Its port; 0 picks a free one."
)
@click.option(
    "--db", "database", type=click.Path(path_type=Path, dir_okay=False), help="SQLite file.  [default: in memory]"
)
@asked(*_DEV_OPTIONS, own=_DEV_DEFAULTS)
def dev(host: str, port: int, database: Path | None, **answers: Any) -> None:
    """Run a local server and a supervisor in one, until Ctrl-C.

    Ctrl-C: finish the running jobs, then end; a second one stops the jobs, with exit code 6.

    It reloads when a handler's file changes, where the package watchfiles is installed.
    """
    _require_kernel_features()

    from supervisor.cli import dev as development

    given = {**_DEV_DEFAULTS, **given_by(answers)}
    sys.exit(development.main(given, _machine(), host=host, port=port, database=database))


@main.command()
@click.argument("action", callback=reads(kinds.NAME))
@click.option("--params", default="{}", show_default=True, metavar="JSON", help="The job's parameters, an object.")
@click.option("--follow", is_flag=True, help="Show what happens to the run; end with its result.")
@click.option("--queue", metavar="NAME", callback=reads(kinds.NAME), help="Queue of the run.  [default: the server's]")
@asked(*_SUBMIT_OPTIONS)
def submit(action: str, params: str, queue: str | None, *, follow: bool, **answers: Any) -> None:
    """Start a run of one step.

    With --follow, show what happens to it; exit 0 when it completed, 1 when it failed.
    """
    import asyncio

    from supervisor.cli.submit import SubmitError, Target, read_parameters
    from supervisor.cli.submit import submit as start

    parameters = read_parameters(params)
    values, credential = _account(_SUBMIT_OPTIONS, answers)
    target = Target(values["base_url"], values["project"], credential.token, _proxy(values))
    try:
        sys.exit(asyncio.run(start(target, action, parameters, queue=queue, follow=follow)))
    except SubmitError as error:
        fail(str(error), error.code)


@main.group()
def spool() -> None:
    """Outcomes on disk that the server does not have yet.

    They can be listed, shown, sent and dropped, also while the service runs.  ID is a job's id, JOB#ATTEMPT, or a
    file's name.
    """


@spool.command("ls")
@asked("state_dir")
def spool_ls(**answers: Any) -> None:
    """List them, undeliverable and damaged ones too."""
    from supervisor.cli import spool as inventory

    path = _state_dir(answers)
    others = inventory.other_spools(path, _homes())  # root can see them only before it becomes the owner of `path`
    inventory.list_all(inventory.spool_in(path, os.environ), others)


@spool.command("show")
@click.argument("name", metavar="ID")
@asked("state_dir")
def spool_show(name: str, **answers: Any) -> None:
    """Show whose outcome it is, and how it begins."""
    from supervisor.cli import spool as inventory

    inventory.show(_spool(answers), name)


@spool.command("drop")
@click.argument("name", metavar="ID")
@click.option("--yes", "is_sure", is_flag=True, help="It cannot be undone.")
@asked("state_dir")
def spool_drop(name: str, *, is_sure: bool, **answers: Any) -> None:
    """Delete one for ever; the server will not hear of it."""
    from supervisor.cli import spool as inventory

    inventory.drop(_spool(answers), name, is_sure=is_sure)


@spool.command("replay")
@asked(*_REPLAY_OPTIONS)
def spool_replay(**answers: Any) -> None:
    """Send now what waits.

    It is what waits for this server and project; exit 0 when nothing of it is left.
    """
    import asyncio

    from supervisor.cli import spool_replay
    from supervisor.reporting.spool_format import Destination

    values, credential = _account(_REPLAY_OPTIONS, answers)
    destination, proxy = Destination(values["base_url"], values["project"]), _proxy(values)
    # The spool comes last: root becomes its owner there, who may neither read root's key nor import from root's home.
    sys.exit(asyncio.run(spool_replay.replay(_spool(answers), destination, credential.token, proxy)))


@main.command()
@click.option("--directory", type=click.Path(path_type=Path), default=".", help="Holds handlers/.  [default: this one]")
@click.option("--template", "is_template", is_flag=True, help="For several instances: mobius-supervisor@.service.")
@click.option("--delegate", "is_drop_in", is_flag=True, help="The drop-in for control groups instead of the unit.")
def unit(directory: Path, *, is_template: bool, is_drop_in: bool) -> None:
    """Print the systemd unit for this installation.

    Its place is /etc/systemd/system/mobius-supervisor.service; with --template it is mobius-supervisor@.service there,
    with --delegate mobius-supervisor.service.d/delegate.conf.
    """
    from supervisor.cli import systemd_unit as units

    if is_template and is_drop_in:
        raise ConfigError("--template and --delegate exclude each other: print one after the other")
    if is_drop_in:
        click.echo(units.delegation(), nl=False)
        return
    # Not resolved: the service is to follow a link to the current release at each start and reload.
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


for command in COMMANDS:
    main.add_command(command)


def _key_hint(source: CredentialSource) -> str:
    """What gives a worker the key that the development server demands, if it demands one."""
    if source.file is not None:
        return f"MOBIUS_SUPERVISOR_API_KEY_FILE={source.file.absolute()}"
    return "MOBIUS_API_KEY=…" if source.is_given else "MOBIUS_API_KEY=mbx_local"


def _account(names: Iterable[str], answers: Mapping[str, Any]) -> tuple[dict[str, Any], Credential]:
    """Return the values of `names`, the server's address and the project among them, and the key."""
    values = values_of(names, answers)
    _, credential = _credential(answers)
    config.complete(values, has_key=credential is not None, key_project=credential.project if credential else None)
    assert credential is not None  # `complete` has said that it is missing
    return values, credential


def _proxy(values: Mapping[str, Any]) -> Proxy | None:
    return proxy_to(values["base_url"], values["proxy"], os.environ)


def _spool(answers: Mapping[str, Any]) -> Spool:
    from supervisor.cli.spool import spool_in

    return spool_in(_state_dir(answers), os.environ)


def _state_dir(answers: Mapping[str, Any]) -> Path:
    from supervisor.cli.spool import state_dir_of
    from supervisor.logs import log

    log.configure("error", "auto")  # what is found damaged on the way
    given: Path | None = values_of(["state_dir"], answers)["state_dir"]
    return given or state_dir_of(os.environ, home())


def _homes() -> list[Path]:
    """Homes of all users, for root, who alone can look into them."""
    return [Path(account.pw_dir) for account in pwd.getpwall()] if os.geteuid() == 0 else []


def _credential(answers: Mapping[str, Any]) -> tuple[CredentialSource, Credential | None]:
    """Return the place of the key and the key; None where there is no place, which is one missing thing of several."""
    source = CredentialSource(values_of(["api_key_file"], answers)["api_key_file"], os.environ)
    return source, source.read() if source.is_given else None


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
