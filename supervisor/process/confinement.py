"""What is taken from handlers, so that they can neither read the API key's file nor harm the supervisor.

`survey` looks and `choose` decides, in the parent; `enter` does it, in the zygote, before any code of a handler runs.
Nothing is taken that handlers may need: where the key's file cannot be hidden without that, `lacking` says so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from supervisor.process import kernel, landlock
from supervisor.process.landlock import Right, Ruleset, Scope

CONTROL_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to hide, and with what means.

    The kernel can hide what is there by allowing the rest, but not allow what will be there: so nothing is hidden below
    an `open_folder`, one in which handlers may create files.
    """

    key_file: Path | None
    open_folder: Path | None
    can_close_groups: bool
    is_bound: bool
    landlock: int

    @property
    def can_hide_key(self) -> bool:
        return bool(self.key_file) and not self.open_folder and self.landlock >= landlock.WITH_REFER


class Confinement(msgspec.Struct, frozen=True):
    """What is taken: reading one file, writing to control groups, signals to all that the job has not started."""

    hidden: str | None = None
    without_groups: bool = False
    without_signals: bool = False

    def enter(self) -> Ruleset | None:
        """Confine this process; return the rest of it, for each child to enforce.

        The zygote itself may signal what its children left behind when the supervisor has died.
        """
        if self == UNCONFINED:
            return None
        kernel.forbid_new_privileges()
        if self.hidden:
            visible = Ruleset(Right.READ_FILE)
            visible.allow_all_but(Path(self.hidden))
            visible.enforce()
            visible.close()
        return self._for_children()

    def _for_children(self) -> Ruleset:
        scope = Scope.SIGNAL if self.without_signals else Scope.NONE
        if not self.without_groups:
            return Ruleset(Right.REFER, scope)
        writable = Ruleset(Right.WRITE_FILE | Right.MAKE_DIR | Right.REMOVE_DIR, scope)
        writable.allow_all_but(CONTROL_GROUPS)
        return writable


UNCONFINED = Confinement()


def survey(key_file: Path | None) -> Survey:
    """Look at this machine and process; a key that is in no regular file need not be hidden."""
    found = key_file.resolve() if key_file and key_file.is_file() else None
    return Survey(
        key_file=found,
        open_folder=_open_folder(found) if found else None,
        can_close_groups=CONTROL_GROUPS.is_dir() and _open_folder(CONTROL_GROUPS) is None,
        is_bound=kernel.are_new_privileges_forbidden(),
        landlock=landlock.version(),
    )


def choose(seen: Survey) -> Confinement:
    """Return what to take from handlers.

    Where there is nothing to hide and programs such as sudo still work, as on a developer's machine, it is nothing.
    """
    if seen.landlock < landlock.WITH_REFER or not (seen.can_hide_key or seen.is_bound):
        return UNCONFINED
    return Confinement(
        hidden=str(seen.key_file) if seen.can_hide_key else None,
        without_groups=seen.can_close_groups,
        without_signals=seen.landlock >= landlock.WITH_SIGNALS,
    )


def lacking(seen: Survey) -> list[str]:
    """Return a sentence for each thing that should be taken from handlers and cannot be."""
    if not seen.key_file and not seen.is_bound:
        return []
    if seen.landlock < landlock.WITH_REFER:
        return ["there is no Landlock (Linux 5.19): handlers can read the API key's file, and signal the supervisor"]
    sentences = []
    if seen.open_folder:
        place = f"it is below {seen.open_folder}, where they may create files"
        sentences.append(f"handlers can read {seen.key_file}, for {place}")
    if seen.is_bound and seen.landlock < landlock.WITH_SIGNALS:
        sentences.append("Landlock is older than Linux 6.12: handlers can signal the supervisor")
    return sentences


def _open_folder(path: Path) -> Path | None:
    """The first folder on the way to `path` in which this user may create files."""
    return next((folder for folder in path.parents if os.access(folder, os.W_OK)), None)
