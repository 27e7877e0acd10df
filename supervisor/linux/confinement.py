"""What is taken from handlers, so that they can neither read the files of secrets nor harm the supervisor.

`survey` looks and `choose` decides, in the parent; `enter` does it, in the zygote, before any code of a handler runs.
Nothing is taken that handlers may need: where a file cannot be hidden without that, `lacking` says so.

Landlock and the filter of system calls both need "no new privileges", with which `sudo` does not work in handlers.  So
handlers are confined where the service manager has forbidden new privileges, or where there is a secret to hide.
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

    The kernel can hide what is there by allowing the rest, but not allow what will be there: so nothing is hidden below
    an `open_folder`, one in which handlers may create files.
    """

    file: Path
    open_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class HostSupport:
    """What there is to hide, and with what means.

    `has_exposed_key`: a process above the supervisor has the key in its environment, which any handler can read that
    is not confined (ptrace(2), PTRACE_MODE_READ).
    """

    secrets: tuple[Secret, ...]
    has_exposed_key: bool
    can_close_groups: bool
    is_bound: bool
    landlock: int
    has_filters: bool

    @property
    def hideable(self) -> tuple[Path, ...]:
        """The files that can be hidden, where there is Landlock."""
        return tuple(secret.file for secret in self.secrets if secret.open_folder is None)

    @property
    def wants_confinement(self) -> bool:
        """True if new privileges are forbidden already, or are worth less than a secret that can be hidden."""
        return self.is_bound or self.has_exposed_key or bool(self.hideable)


@dataclass(frozen=True, slots=True)
class Restrictions:
    """What each child enforces on itself, so that one child cannot reach another."""

    ruleset: Ruleset | None = None
    filter: seccomp.Filter | None = None

    def enforce(self) -> None:
        """Restrict this process, which has one thread, and all that it will start."""
        if self.ruleset is not None:
            self.ruleset.enforce()
            self.ruleset.close()
        if self.filter is not None:
            self.filter.install()


UNRESTRICTED = Restrictions()


class Confinement(msgspec.Struct, frozen=True):
    """What is taken: reading some files, writing to control groups, signals to all that the job has not started.

    With `filters_calls` also changing the limits and the scheduling of other processes (see `seccomp`).
    """

    hidden: tuple[str, ...] = ()
    without_groups: bool = False
    without_signals: bool = False
    filters_calls: bool = False

    def enter(self) -> Restrictions:
        """Confine this process; return the rest of it, for each child to enforce.

        The zygote itself may signal what its children left behind when the supervisor has died.
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
        if not (self.hidden or self.without_groups or self.without_signals):
            return None
        scope = Scope.SIGNAL if self.without_signals else Scope.NONE
        if not self.without_groups:
            return Ruleset(Right.REFER, scope)
        writable = Ruleset(Right.WRITE_FILE | Right.MAKE_DIR | Right.REMOVE_DIR, scope)
        writable.allow_all_but(CONTROL_GROUPS)
        return writable


UNCONFINED = Confinement()


def probe(files: Iterable[Path], *, has_exposed_key: bool = False) -> HostSupport:
    """Look at this machine and process; what is no regular file need not be hidden."""
    found = dict.fromkeys(file.resolve() for file in files if file.is_file())
    return HostSupport(
        secrets=tuple(Secret(file, _open_folder(file)) for file in found),
        has_exposed_key=has_exposed_key,
        can_close_groups=CONTROL_GROUPS.is_dir() and _open_folder(CONTROL_GROUPS) is None,
        is_bound=kernel.are_new_privileges_forbidden(),
        landlock=landlock.version(),
        has_filters=seccomp.is_available(),
    )


def choose(seen: HostSupport) -> Confinement:
    """Return what to take from handlers.

    Where there is nothing to hide and programs such as sudo still work, as on a developer's machine, it is nothing.
    """
    if not seen.wants_confinement:
        return UNCONFINED
    if seen.landlock < landlock.WITH_REFER:
        return Confinement(filters_calls=seen.has_filters)
    return Confinement(
        hidden=tuple(map(str, seen.hideable)),
        without_groups=seen.can_close_groups,
        without_signals=seen.landlock >= landlock.WITH_SIGNALS,
        filters_calls=seen.has_filters,
    )


def missing_protections(seen: HostSupport) -> list[str]:
    """Return a sentence for each thing that should be taken from handlers and cannot be."""
    if not (seen.secrets or seen.is_bound or seen.has_exposed_key):
        return []
    return [*_lacking_of_landlock(seen), *_lacking_of_filters(seen)]


def _lacking_of_landlock(seen: HostSupport) -> list[str]:
    if seen.landlock < landlock.WITH_REFER:
        files = "".join(f"read {secret.file}, and " for secret in seen.secrets)
        return [f"there is no Landlock (Linux 5.19): handlers can {files}signal the supervisor"]
    sentences = [
        f"handlers can read {secret.file}, for it is below {secret.open_folder}, where they may create files"
        for secret in seen.secrets
        if secret.open_folder
    ]
    if seen.is_bound and seen.landlock < landlock.WITH_SIGNALS:
        sentences.append("Landlock is older than Linux 6.12: handlers can signal the supervisor")
    return sentences


def _lacking_of_filters(seen: HostSupport) -> list[str]:
    if seen.has_filters or not seen.wants_confinement:
        return []
    return [
        "the kernel or a sandbox has no seccomp filter here: handlers can change the supervisor's limits and priority"
    ]


def _open_folder(path: Path) -> Path | None:
    """The first folder on the way to `path` in which this user may create files."""
    return next((folder for folder in path.parents if os.access(folder, os.W_OK)), None)
