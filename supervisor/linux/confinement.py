"""Restrictions of handlers: they must neither read the files of secrets nor harm the supervisor.

In the parent, `probe` examines the host and `choose` decides.  In the zygote, `Confinement.enter` restricts the process
before any code of a handler runs.  Rights that handlers may need are never removed; `missing_protections` describes
what stays possible for that reason.

Landlock and seccomp filters need "no new privileges", which breaks `sudo` in handlers.  So handlers are confined only
if the service manager has already forbidden new privileges, or if there is a secret to hide.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from supervisor.linux import landlock, seccomp
from supervisor.linux import syscalls as kernel
from supervisor.linux.landlock import Right, Ruleset, Scope

CONTROL_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Secret:
    """A file that handlers must not read.

    Landlock hides a file by allowing all other existing files; files that are created later in the same folder cannot
    be allowed.  So a file is not hidden if handlers may create files in a folder above it, its `open_folder`.
    """

    file: Path
    open_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class HostSupport:
    """The secrets to hide, and the kernel features that can hide them.

    `has_exposed_key` is true if an ancestor of the supervisor has the key in its environment, which every unconfined
    handler can read (ptrace(2), PTRACE_MODE_READ).  `has_no_new_privs` is true if new privileges are already forbidden.
    """

    secrets: tuple[Secret, ...]
    has_exposed_key: bool
    can_protect_cgroups: bool
    has_no_new_privs: bool
    landlock: int
    has_seccomp: bool

    @property
    def hideable(self) -> tuple[Path, ...]:
        """The files that Landlock can hide."""
        return tuple(secret.file for secret in self.secrets if secret.open_folder is None)

    @property
    def needs_confinement(self) -> bool:
        """True if new privileges are already forbidden, or if confinement would hide a secret."""
        return self.has_no_new_privs or self.has_exposed_key or bool(self.hideable)


@dataclass(frozen=True, slots=True)
class Restrictions:
    """Restrictions that each child enforces on itself, so that one child cannot affect another."""

    ruleset: Ruleset | None = None
    filter: seccomp.Filter | None = None

    def enforce(self) -> None:
        """Restrict this process, which has one thread, and its future descendants."""
        if self.ruleset is not None:
            self.ruleset.enforce()
            self.ruleset.close()
        if self.filter is not None:
            self.filter.install()


UNRESTRICTED = Restrictions()


class Confinement(msgspec.Struct, frozen=True):
    """The rights to remove: reading `hidden` files, writing to control groups, signalling processes outside the job.

    `filters_calls` also removes the right to change limits and scheduling of other processes (see `seccomp`).
    """

    hidden: tuple[str, ...] = ()
    protects_cgroups: bool = False
    blocks_signals: bool = False
    filters_calls: bool = False

    def enter(self) -> Restrictions:
        """Confine this process; return the restrictions that each child must enforce on itself.

        The zygote keeps the right to signal: it kills what its children left behind when the supervisor has died.
        """
        if self == UNCONFINED:
            return UNRESTRICTED
        kernel.forbid_new_privileges()
        if self.hidden:
            visible = Ruleset(Right.READ_FILE)
            visible.allow_all_but(*map(Path, self.hidden))
            visible.enforce()
            visible.close()
        return Restrictions(self._ruleset(), seccomp.Filter() if self.filters_calls else None)

    def _ruleset(self) -> Ruleset | None:
        if not (self.hidden or self.protects_cgroups or self.blocks_signals):
            return None
        scope = Scope.SIGNAL if self.blocks_signals else Scope.NONE
        if not self.protects_cgroups:
            return Ruleset(Right.REFER, scope)
        writable = Ruleset(Right.WRITE_FILE | Right.MAKE_DIR | Right.REMOVE_DIR, scope)
        writable.allow_all_but(CONTROL_GROUPS)
        return writable


UNCONFINED = Confinement()


def probe(files: Iterable[Path], *, has_exposed_key: bool = False) -> HostSupport:
    """Examine the host and this process.  Only regular files need to be hidden."""
    found = dict.fromkeys(file.resolve() for file in files if file.is_file())
    return HostSupport(
        secrets=tuple(Secret(file, _open_folder(file)) for file in found),
        has_exposed_key=has_exposed_key,
        can_protect_cgroups=CONTROL_GROUPS.is_dir() and _open_folder(CONTROL_GROUPS) is None,
        has_no_new_privs=kernel.are_new_privileges_forbidden(),
        landlock=landlock.version(),
        has_seccomp=seccomp.is_available(),
    )


def choose(host: HostSupport) -> Confinement:
    """Return the rights to remove from handlers.

    No right is removed if there is nothing to hide and `sudo` still works, as on the machine of a developer.
    """
    if not host.needs_confinement:
        return UNCONFINED
    if host.landlock < landlock.WITH_REFER:
        return Confinement(filters_calls=host.has_seccomp)
    return Confinement(
        hidden=tuple(map(str, host.hideable)),
        protects_cgroups=host.can_protect_cgroups,
        blocks_signals=host.landlock >= landlock.WITH_SIGNALS,
        filters_calls=host.has_seccomp,
    )


def missing_protections(host: HostSupport) -> list[str]:
    """Return a sentence for each right that handlers should not have but keep."""
    if not (host.secrets or host.has_no_new_privs or host.has_exposed_key):
        return []
    return [*_missing_landlock(host), *_missing_filters(host)]


def _missing_landlock(host: HostSupport) -> list[str]:
    if host.landlock < landlock.WITH_REFER:
        files = "".join(f"read {secret.file}, and " for secret in host.secrets)
        return [f"there is no Landlock (Linux 5.19): handlers can {files}signal the supervisor"]
    sentences = [
        f"handlers can read {secret.file}: it is below {secret.open_folder}, where they may create files"
        for secret in host.secrets
        if secret.open_folder
    ]
    if host.has_no_new_privs and host.landlock < landlock.WITH_SIGNALS:
        sentences.append("Landlock is older than Linux 6.12: handlers can signal the supervisor")
    return sentences


def _missing_filters(host: HostSupport) -> list[str]:
    if host.has_seccomp or not host.needs_confinement:
        return []
    return [
        "the kernel or a sandbox has no seccomp filter here: handlers can change the supervisor's limits and priority"
    ]


def _open_folder(path: Path) -> Path | None:
    """Return the nearest folder above `path` in which this user may create files."""
    return next((folder for folder in path.parents if os.access(folder, os.W_OK)), None)
