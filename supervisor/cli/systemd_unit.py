"""The systemd units for an installation.  Pure; the `unit` command prints them.

The files in `systemd/` are the output for an installation in /opt/mobius-supervisor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from supervisor.settings.resolution import ConfigError

NAME = "mobius-supervisor"

# Characters that have no special meaning to systemd between quotes.  It drops a blank at the end of a line.
_PLAIN_PATH = re.compile(r"/([\w ./+@:~,-]*[\w./+@:~,-])?")
# Folders that the unit hides from the service: ProtectHome=, PrivateTmp=.
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - nothing is written there


@dataclass(frozen=True, slots=True)
class Installation:
    """The program and its working directory, which contains `handlers/`."""

    program: Path
    folder: Path

    def __post_init__(self) -> None:
        for path in (self.program, self.folder):
            if not _PLAIN_PATH.fullmatch(str(path)):
                raise ConfigError(f"{str(path)!r} has characters that mean something else in a unit: install elsewhere")

    @property
    def hidden_paths(self) -> list[Path]:
        """The paths of the installation that the service could not see."""
        return [path for path in (self.program, self.folder) if any(map(path.is_relative_to, _HIDDEN))]


def service(installation: Installation) -> str:
    """Return `mobius-supervisor.service`."""
    return _fill(installation, instance="", user=NAME, own=NAME, settings=f"/etc/{NAME}")


def template(installation: Installation) -> str:
    """Return `mobius-supervisor@.service`: each instance has its own key, settings, user and state."""
    # The state is not below that of the plain service, which would treat it as its own.  Each instance has its own
    # user, because otherwise one instance could read the key of another.
    return _fill(installation, instance=" (%i)", user="mobius-%i", own=f"{NAME}-%i", settings=f"/etc/{NAME}/%i")


def delegation() -> str:
    """Return the drop-in that gives the service its own control groups."""
    return _DELEGATION


def _fill(installation: Installation, **names: str) -> str:
    return _SERVICE.format(program=_word(installation.program), folder=installation.folder, **names)


def _word(path: Path) -> str:
    """Return a path as one word of a command line; only `Exec…=` has words (systemd.service(5), "Command lines")."""
    return f'"{path}"' if " " in str(path) else str(path)


_SERVICE = """\
# Printed by `mobius-supervisor unit`.  The key is in {settings}/api-key (root's, mode 0600), and in
# {settings}/env there is at least
#     MOBIUS_BASE_URL=https://…
#     PROJECT=acme

[Unit]
Description=Mobius supervisor{instance}: runs the jobs of a Mobius project
Wants=network-online.target
After=network-online.target
# Restarts go on for as long as the cause does: RestartSec keeps them slow.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
# Each child needs about four descriptors of the supervisor, which raises its soft limit to the hard one by itself;
# children get the soft one, beyond which select(2) does not work.
LimitNOFILE=1024:524288
# Importing the handlers and the first answer of the server come before READY; while it waits for them, the
# supervisor asks for more time by itself.
TimeoutStartSec=3min
WatchdogSec=30
# After the watchdog's SIGABRT; a process that hangs in the kernel is killed then.
TimeoutAbortSec=10

# Not in Environment=: any user may read that over D-Bus.
LoadCredential=mobius-api-key:{settings}/api-key
EnvironmentFile=-{settings}/env
WorkingDirectory={folder}
# systemd follows links in it; by this name a reload finds the release that a link leads to by then.
Environment=PWD={folder}
ExecStart={program} run
# New handlers and the settings of --config; running jobs go on.  It ends with the outcome, which a signal does not
# tell: when the old handlers and settings stay it fails, with the reason in the journal.  The time is below
# TimeoutStartSec, which bounds a reload as well.
ExecReload={program} reload --timeout 170s

# The supervisor stops its children itself, in order; what is left at the very end systemd kills.
KillMode=mixed
# Above --drain-timeout (5 min) plus the graces of the jobs cut then and of their reports; with a longer one the
# supervisor asks for more time by itself.
TimeoutStopSec=6min
# A child that the kernel kills for memory is one job's failure, not the service's.
OOMPolicy=continue
Restart=always
RestartSec=5
# A wrong setting, handlers that do not load, a refused key: starting again would not help.
RestartPreventExitStatus=2 3 4

DynamicUser=yes
User={user}
StateDirectory={own}
StateDirectoryMode=0700
RuntimeDirectory={own}
RuntimeDirectoryMode=0700
UMask=0077

# Hardening.  Left off on purpose, because handlers need it:
#   MemoryDenyWriteExecute   JIT compilers (numba, PyPy, the regular expressions of some libraries)
#   ProcSubset=pid           psutil and os.cpu_count read /proc/stat and /proc/meminfo
#   PrivateNetwork, IPAddressDeny   the server, and whatever handlers fetch
#   SystemCallFilter=~@resources    numpy and BLAS set their threads' affinity, handlers may be nice
#   PrivateUsers             files that belong to other users, given by BindPaths=, would show as nobody's
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
LockPersonality=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
# The supervisor confines handlers by these; systemd before 255 does not count them among the others.
SystemCallFilter=landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

_DELEGATION = """\
# Printed by `mobius-supervisor unit --delegate`.  The supervisor gets control groups of its own, in which the kernel
# bounds the memory of each child and of all that it starts.

[Service]
Delegate=memory pids
ProtectControlGroups=no
"""
