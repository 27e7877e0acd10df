"""The settings of one run of the program, each written once: its option, help, default, kind and environment names.

Pure.  `asking` makes the command line of them, `config` finds their values.  The credential is no setting: `credential`
reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.settings import value_types as kinds
from supervisor.settings.option import Option, setting
from supervisor.settings.value_types import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a user can set for `run`.  Lengths in seconds; no queues means all of them."""

    workers: int = setting(
        "workers",
        kinds.WORKERS,
        "How many child processes run jobs, each one at a time; 1,024 at most.",
        default="auto",
        shown_default="auto: the CPUs this process may use",
    )
    handlers: tuple[Path, ...] = setting(
        "handlers",
        kinds.FOLDERS,
        "Folder of handler modules; may be repeated, or several joined by ':'.",
        default="./handlers",
    )
    queues: tuple[str, ...] = setting(
        "queue",
        kinds.NAMES,
        "Queue to take jobs from; may be repeated, or several joined by ','.",
        default="default",
        aliases=("MOBIUS_QUEUES",),
    )
    base_url: str = setting(
        "base-url",
        kinds.URL,
        "Address of the Mobius server.",
        aliases=("MOBIUS_BASE_URL", "MOBIUS_API_URL"),
        is_required=True,
        is_fixed=True,
    )
    project: str = setting(
        "project",
        kinds.PROJECT,
        "Project whose jobs are run; not needed when the API key names it.",
        aliases=("PROJECT", "MOBIUS_PROJECT"),
        is_required=True,
        is_fixed=True,
    )
    worker_id: str = setting(
        "worker-id",
        kinds.NAME,
        "Name of this worker; no two that run may share one.",
        shown_default="generated: HOST-PID-RANDOM",
        aliases=("WORKER_ID", "MOBIUS_WORKER_ID"),
        is_fixed=True,
    )
    api_key_file: Path | None = setting(
        "api-key-file",
        kinds.PATH,
        "File that holds the API key, - for standard input; it is never taken from the command line.",
        shown_default="the systemd credential mobius-api-key, else $MOBIUS_API_KEY",
        is_fixed=True,
    )
    proxy: str = setting(
        "proxy",
        kinds.PROXY,
        "HTTP proxy on the way to a server that is not local; env: as HTTPS_PROXY, HTTP_PROXY, NO_PROXY say.",
        default="env",
    )
    wait_seconds: float = setting(
        "wait-seconds", kinds.WAIT, "How long an empty claim waits for a job, at most 30 s.", default="20"
    )
    auth_timeout: float = setting(
        "auth-timeout",
        kinds.DURATION,
        "How long the server may refuse an API key that it has accepted before, until the program ends.",
        default="2m",
    )
    cancel_grace: float = setting(
        "cancel-grace", kinds.DURATION, "From SIGTERM to SIGKILL when a job is stopped.", default="2s"
    )
    job_timeout: float | None = setting(
        "job-timeout",
        kinds.POSITIVE_DURATION,
        "How long a job may run whose handler says nothing of it.",
        shown_default="for ever",
    )
    job_memory: int | None = setting(
        "job-memory",
        kinds.SIZE,
        "Memory that a job and all it starts may use, as 2GiB, if its handler says nothing of it.",
        shown_default="all there is",
    )
    max_jobs_per_child: int | None = setting(
        "max-jobs-per-child", kinds.COUNT, "Jobs after which a child is replaced.", shown_default="never"
    )
    max_memory_per_child: int | None = setting(
        "max-memory-per-child",
        kinds.SIZE,
        "Memory, kept after a job, for which a child is replaced.",
        shown_default="any",
    )
    min_free_memory: Share = setting(
        "min-free-memory",
        kinds.SHARE,
        "Nothing is claimed while less memory than this is available, on the machine or in the cgroup.",
        default="5%",
    )
    nice: int = setting(
        "nice",
        kinds.NICENESS,
        "Added to the niceness of the children, so that the supervisor comes first.",
        default="5",
    )
    threads: int | None = setting(
        "threads",
        kinds.COUNT,
        "Threads that numeric libraries use in a child.",
        shown_default="CPUs divided by workers",
    )
    drain_timeout: float = setting(
        "drain-timeout", kinds.DURATION, "How long running jobs may take to finish at a shutdown.", default="5m"
    )
    lease_ttl: float | None = setting(
        "lease-ttl",
        kinds.POSITIVE_DURATION,
        "Silence of the server after which a job's lease counts as lost.",
        shown_default="three heartbeat intervals",
    )
    max_heartbeat_interval: float | None = setting(
        "max-heartbeat-interval",
        kinds.POSITIVE_DURATION,
        "Longest time between two heartbeats; shorter means quicker cancellation.",
        shown_default="the server's",
    )
    spool_after: float = setting(
        "spool-after",
        kinds.DURATION,
        "A job that took longer has its outcome on disk before it is first sent.",
        default="5s",
    )
    import_timeout: float = setting(
        "import-timeout", kinds.POSITIVE_DURATION, "How long importing the handlers may take.", default="1m"
    )
    pass_env: tuple[str, ...] = setting(
        "pass-env",
        kinds.VARIABLES,
        "Environment variable that handlers see besides PATH, HOME, LANG and the like; may be repeated.",
        shown_default="none",
    )
    state_dir: Path = setting(
        "state-dir",
        kinds.PATH,
        "Folder for what must survive a restart.",
        shown_default="$STATE_DIRECTORY, else mobius-supervisor in $XDG_STATE_HOME or ~/.local/state",
        is_fixed=True,
    )
    watch: bool = setting(
        "watch",
        kinds.SWITCH,
        "Reload when a handler's file changes; needs the package watchfiles.",
        default="off",
        is_fixed=True,
    )
    forward_output: bool = setting(
        "forward-output",
        kinds.SWITCH,
        "What handlers print also goes to the server, as `log` events of their runs.",
        default="off",
    )
    socket: Path | None = setting(
        "socket",
        kinds.PATH,
        "Control socket, for the commands that look and steer.",
        shown_default="in $RUNTIME_DIRECTORY, else in $XDG_RUNTIME_DIR/mobius-supervisor, else in --state-dir",
        is_fixed=True,
    )
    listen: tuple[str, int] | None = setting(
        "listen",
        kinds.ADDRESS,
        "Address at which the status page, health and metrics can be seen as well.",
        shown_default="none",
        is_fixed=True,
    )
    listen_names: tuple[str, ...] = setting(
        "listen-name",
        kinds.HOST_NAMES,
        "Name by which --listen may be asked besides its own, '*' for health and metrics by any; may be repeated.",
        shown_default="none",
        is_fixed=True,
    )
    listen_token_file: Path | None = setting(
        "listen-token-file",
        kinds.PATH,
        "File with the token that allows commands at --listen.",
        shown_default="none: no commands there",
        is_fixed=True,
    )
    log_level: str = setting(
        "log-level", kinds.LEVEL, "Least important lines to log.", default="info", aliases=("MOBIUS_LOG_LEVEL",)
    )
    log_format: str = setting(
        "log-format",
        kinds.FORMAT,
        "How lines look; auto: console on a terminal, priorities under systemd, else JSON.",
        default="auto",
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
