"""The settings of one run of the program, and how each is asked for.  Pure: no I/O, no clock.

Each setting is written once, as a field of `Settings`: its option, help, default, kind and environment names.  `cli`
makes the command line from it, `resolve` the values.  The credential is no setting: `credential` reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor import kinds
from supervisor.kinds import Kind, Share

ENVIRONMENT_PREFIX = "MOBIUS_SUPERVISOR_"


class ConfigError(Exception):
    """What the user asked for cannot be done; the text is one clear sentence.  Caught by `cli`, which exits with 2."""


@dataclass(frozen=True, slots=True)
class Option:
    """How one setting is asked for.

    `default` is what a user would have written; None where it is computed or required, which `shown_default` then says.
    `aliases` are environment names besides the one made from the option's own name, first wins.  What is fixed cannot
    change while the program runs: a reload keeps it and says so.
    """

    name: str
    kind: Kind
    help: str
    default: str | None = None
    shown_default: str = ""
    aliases: tuple[str, ...] = ()
    is_required: bool = False
    is_fixed: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def key(self) -> str:
        """The name under which the command line's answers are kept."""
        return self.name.replace("-", "_")

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment names, the one that wins first."""
        return (ENVIRONMENT_PREFIX + self.key.upper(), *self.aliases)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was given for an option: the texts, where they come from, and how near to the user that is (0 nearest)."""

    texts: tuple[str, ...]
    origin: str
    rank: int


# What the command line gave, by `Option.key`: texts as they were typed; absent or None when it gave nothing.
Given = Mapping[str, tuple[str, ...] | None]


@dataclass(frozen=True, slots=True)
class Written:
    """What a settings file says, by `Option.key`: texts as they would be typed."""

    path: str = ""
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


NOTHING_WRITTEN = Written()


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the program runs, as far as defaults depend on it; `random` makes generated worker ids differ."""

    cpus: int
    host: str
    pid: int
    random: str
    home: Path


def _asked(name: str, kind: Kind, text: str, **more: Any) -> dict[str, Option]:
    return {"option": Option(name, kind, text, **more)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a user can set for `run`.  Lengths in seconds; no queues means all of them."""

    workers: int = field(
        metadata=_asked(
            "workers",
            kinds.WORKERS,
            "How many child processes run jobs, each one at a time.",
            default="auto",
            shown_default="auto: the CPUs this process may use",
        )
    )
    handlers: tuple[Path, ...] = field(
        metadata=_asked(
            "handlers",
            kinds.FOLDERS,
            "Folder of handler modules; may be repeated, or several joined by ':'.",
            default="./handlers",
        )
    )
    queues: tuple[str, ...] = field(
        metadata=_asked(
            "queue",
            kinds.NAMES,
            "Queue to take jobs from; may be repeated, or several joined by ','.",
            default="default",
            aliases=("MOBIUS_QUEUES",),
        )
    )
    base_url: str = field(
        metadata=_asked(
            "base-url",
            kinds.URL,
            "Address of the Mobius server.",
            aliases=("MOBIUS_BASE_URL", "MOBIUS_API_URL"),
            is_required=True,
            is_fixed=True,
        )
    )
    project: str = field(
        metadata=_asked(
            "project",
            kinds.PROJECT,
            "Project whose jobs are run; not needed when the API key names it.",
            aliases=("PROJECT", "MOBIUS_PROJECT"),
            is_required=True,
            is_fixed=True,
        )
    )
    worker_id: str = field(
        metadata=_asked(
            "worker-id",
            kinds.NAME,
            "Name of this worker; no two that run may share one.",
            shown_default="generated: HOST-PID-RANDOM",
            aliases=("WORKER_ID", "MOBIUS_WORKER_ID"),
            is_fixed=True,
        )
    )
    api_key_file: Path | None = field(
        metadata=_asked(
            "api-key-file",
            kinds.PATH,
            "File that holds the API key, - for standard input; it is never taken from the command line.",
            shown_default="the systemd credential mobius-api-key, else $MOBIUS_API_KEY",
            is_fixed=True,
        )
    )
    wait_seconds: float = field(
        metadata=_asked(
            "wait-seconds", kinds.WAIT, "How long an empty claim waits for a job, at most 30 s.", default="20"
        )
    )
    cancel_grace: float = field(
        metadata=_asked("cancel-grace", kinds.DURATION, "From SIGTERM to SIGKILL when a job is stopped.", default="2s")
    )
    job_timeout: float | None = field(
        metadata=_asked(
            "job-timeout",
            kinds.POSITIVE_DURATION,
            "How long a job may run whose handler says nothing of it.",
            shown_default="for ever",
        )
    )
    job_memory: int | None = field(
        metadata=_asked(
            "job-memory",
            kinds.SIZE,
            "Memory that a job and all it starts may use, as 2GiB, if its handler says nothing of it.",
            shown_default="all there is",
        )
    )
    max_jobs_per_child: int | None = field(
        metadata=_asked(
            "max-jobs-per-child", kinds.COUNT, "Jobs after which a child is replaced.", shown_default="never"
        )
    )
    max_memory_per_child: int | None = field(
        metadata=_asked(
            "max-memory-per-child",
            kinds.SIZE,
            "Memory, kept after a job, for which a child is replaced.",
            shown_default="any",
        )
    )
    min_free_memory: Share = field(
        metadata=_asked(
            "min-free-memory",
            kinds.SHARE,
            "Nothing is claimed while less memory than this is available, on the machine or in the cgroup.",
            default="5%",
        )
    )
    nice: int = field(
        metadata=_asked(
            "nice",
            kinds.NICENESS,
            "Added to the niceness of the children, so that the supervisor comes first.",
            default="5",
        )
    )
    threads: int | None = field(
        metadata=_asked(
            "threads",
            kinds.COUNT,
            "Threads that numeric libraries use in a child.",
            shown_default="CPUs divided by workers",
        )
    )
    drain_timeout: float = field(
        metadata=_asked(
            "drain-timeout", kinds.DURATION, "How long running jobs may take to finish at a shutdown.", default="5m"
        )
    )
    lease_ttl: float | None = field(
        metadata=_asked(
            "lease-ttl",
            kinds.POSITIVE_DURATION,
            "Silence of the server after which a job's lease counts as lost.",
            shown_default="three heartbeat intervals",
        )
    )
    max_heartbeat_interval: float | None = field(
        metadata=_asked(
            "max-heartbeat-interval",
            kinds.POSITIVE_DURATION,
            "Longest time between two heartbeats; shorter means quicker cancellation.",
            shown_default="the server's",
        )
    )
    spool_after: float = field(
        metadata=_asked(
            "spool-after",
            kinds.DURATION,
            "A job that took longer has its outcome on disk before it is first sent.",
            default="5s",
        )
    )
    import_timeout: float = field(
        metadata=_asked(
            "import-timeout", kinds.POSITIVE_DURATION, "How long importing the handlers may take.", default="1m"
        )
    )
    pass_env: tuple[str, ...] = field(
        metadata=_asked(
            "pass-env",
            kinds.VARIABLES,
            "Environment variable that handlers see besides PATH, HOME, LANG and the like; may be repeated.",
            shown_default="none",
        )
    )
    state_dir: Path = field(
        metadata=_asked(
            "state-dir",
            kinds.PATH,
            "Folder for what must survive a restart.",
            shown_default="$STATE_DIRECTORY, else mobius-supervisor in $XDG_STATE_HOME or ~/.local/state",
            is_fixed=True,
        )
    )
    watch: bool = field(
        metadata=_asked(
            "watch",
            kinds.SWITCH,
            "Reload when a handler's file changes; needs the package watchfiles.",
            default="off",
            is_fixed=True,
        )
    )
    forward_output: bool = field(
        metadata=_asked(
            "forward-output",
            kinds.SWITCH,
            "What handlers print also goes to the server, as `log` events of their runs.",
            default="off",
        )
    )
    socket: Path | None = field(
        metadata=_asked(
            "socket",
            kinds.PATH,
            "Control socket, for the commands that look and steer.",
            shown_default="in $RUNTIME_DIRECTORY, else in $XDG_RUNTIME_DIR/mobius-supervisor, else in --state-dir",
            is_fixed=True,
        )
    )
    listen: tuple[str, int] | None = field(
        metadata=_asked(
            "listen",
            kinds.ADDRESS,
            "Address at which the status page, health and metrics can be seen as well.",
            shown_default="none",
            is_fixed=True,
        )
    )
    listen_token_file: Path | None = field(
        metadata=_asked(
            "listen-token-file",
            kinds.PATH,
            "File with the token that allows commands at --listen.",
            shown_default="none: no commands there",
            is_fixed=True,
        )
    )
    log_level: str = field(
        metadata=_asked(
            "log-level", kinds.LEVEL, "Least important lines to log.", default="info", aliases=("MOBIUS_LOG_LEVEL",)
        )
    )
    log_format: str = field(
        metadata=_asked(
            "log-format",
            kinds.FORMAT,
            "How lines look; auto: console on a terminal, priorities under systemd, else JSON.",
            default="auto",
        )
    )


ALL_QUEUES = Option("all-queues", kinds.SWITCH, "Take jobs from every queue.", default="off")
ALLOW_HTTP = Option(
    "allow-http", kinds.SWITCH, "Send the API key unencrypted to a server that is not local.", default="off"
)
CONFIG = Option(
    "config",
    kinds.PATH,
    "File of settings, TOML: `workers = 8`, `queue = ['a', 'b']`; read again at each reload.",
    shown_default="none",
)

OPTIONS: Mapping[str, Option] = {
    **{each.name: each.metadata["option"] for each in dataclasses.fields(Settings)},
    "all_queues": ALL_QUEUES,
    "allow_http": ALLOW_HTTP,
    "config": CONFIG,
}


def resolve(
    given: Given,
    environment: Mapping[str, str],
    machine: Machine,
    *,
    has_key: bool,
    key_project: str | None,
    written: Written = NOTHING_WRITTEN,
) -> Settings:
    """Return the settings: the command line wins over the environment, that over the file, that over the defaults.

    `key_project` is the project that the API key names.  Raises `ConfigError` as `read_values` and `complete` do.
    """
    answers = {name: _answer(option, given, environment, written) for name, option in OPTIONS.items()}
    values = {name: _read(OPTIONS[name], answer) for name, answer in answers.items()}
    complete(values, has_key=has_key, key_project=key_project)
    if _are_all_queues_meant(values, answers):
        values["queues"] = ()
    computed = _computed_defaults(environment, machine, values["workers"])
    fields: dict[str, Any] = {
        each.name: computed.get(each.name) if values[each.name] is None else values[each.name]
        for each in dataclasses.fields(Settings)
    }
    return Settings(**fields)


def keep_fixed(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """`new` as far as it can be taken over at run time, and the names of the options for which it cannot."""
    fixed = {each.name: getattr(old, each.name) for each in dataclasses.fields(old) if OPTIONS[each.name].is_fixed}
    refused = [OPTIONS[name].flag for name, value in fixed.items() if value != getattr(new, name)]
    return dataclasses.replace(new, **fixed), refused


def read_values(
    names: Iterable[str], given: Given, environment: Mapping[str, str], written: Written = NOTHING_WRITTEN
) -> dict[str, Any]:
    """Return the values of the options `names` alone, for a command that needs no more; None where there is none.

    Raises `ConfigError`, which says where a wrong value comes from.
    """
    return {name: _read(OPTIONS[name], _answer(OPTIONS[name], given, environment, written)) for name in names}


def complete(values: dict[str, Any], *, has_key: bool, key_project: str | None) -> None:
    """Take over the project that the key names, and see that all that a server must be told is there.

    Raises `ConfigError`; for what is missing it is one that names everything at once, the key included.
    """
    values["project"] = _agreed_project(values["project"], key_project)
    _require(values, has_key=has_key)
    _refuse_clear_text(values)


def _answer(option: Option, given: Given, environment: Mapping[str, str], written: Written) -> Answer | None:
    typed = given.get(option.key)
    if typed:
        return Answer(typed, option.flag, 0)
    for rank, variable in enumerate(option.variables, 1):
        # Set but empty is how a unit's environment file or a shell script says "not set".
        if environment.get(variable):
            return Answer((environment[variable],), variable, rank)
    if option.key in written.texts:
        return Answer(written.texts[option.key], f"{written.path}: {option.name}", 50)
    return Answer((option.default,), option.flag, 99) if option.default else None


def _read(option: Option, answer: Answer | None) -> Any:
    if answer is None:
        return () if option.kind.is_repeatable else None
    try:
        if not option.kind.is_repeatable:
            return option.kind.read(answer.texts[-1])
        return tuple(dict.fromkeys(map(option.kind.read, _pieces(option.kind, answer.texts))))
    except ValueError as error:
        raise ConfigError(f"{answer.origin}: {error}") from error


def _pieces(kind: Kind, texts: tuple[str, ...]) -> list[str]:
    pieces = [piece.strip() for text in texts for piece in text.split(kind.separator)]
    named = [piece for piece in pieces if piece]
    if not named:
        raise ValueError("must not be empty")
    return named


def _require(values: Mapping[str, Any], *, has_key: bool) -> None:
    missing = [
        f"{option.flag} (or {option.aliases[0]})"
        for name, option in OPTIONS.items()
        if option.is_required and name in values and values[name] is None
    ]
    if not has_key:
        missing.append("the API key (MOBIUS_API_KEY or --api-key-file)")
    if missing:
        raise ConfigError(f"missing: {', '.join(missing)}")


def _refuse_clear_text(values: Mapping[str, Any]) -> None:
    if kinds.is_in_clear(values["base_url"]) and not values["allow_http"]:
        raise ConfigError(
            f"the API key would travel unencrypted to {values['base_url']}: use https, "
            "or --allow-http where the network can be trusted"
        )


def _agreed_project(project: str | None, key_project: str | None) -> str | None:
    if project and key_project and project != key_project:
        raise ConfigError(f"the project is {project!r}, but the API key belongs to {key_project!r}")
    return project or key_project


def _are_all_queues_meant(values: Mapping[str, Any], answers: Mapping[str, Answer | None]) -> bool:
    every, some = answers["all_queues"], answers["queues"]
    if not values["all_queues"] or every is None or some is None:
        return False
    if every.rank == some.rank:
        raise ConfigError(f"{some.origin} and {every.origin} exclude each other")
    return every.rank < some.rank


def _computed_defaults(environment: Mapping[str, str], machine: Machine, workers: int | None) -> dict[str, Any]:
    return {
        "workers": machine.cpus,
        "threads": max(1, machine.cpus // (workers or machine.cpus)),
        "worker_id": f"{machine.host[:150]}-{machine.pid}-{machine.random}",
        "state_dir": default_state_dir(environment, machine.home),
    }


def default_state_dir(environment: Mapping[str, str], home: Path) -> Path:
    """Where the state is kept when nobody says where."""
    # systemd joins several state directories by ':'; the first is the service's own.
    given = environment.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    base = environment.get("XDG_STATE_HOME", "")
    # The base directory specification: a relative path is invalid and to be ignored.
    return (Path(base) if base.startswith("/") else home / ".local" / "state") / "mobius-supervisor"
