"""The files in folders of handlers: which are modules, which are helpers, and which cannot be either.

Runs in the zygote before anything is imported, but for the modules of other owners whose names a file here has taken.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor.child.static_source import handler_line
from supervisor.ipc.messages import MAX_MESSAGE, Problem
from supervisor.text.printable import encodable

MAX_PATH = 4096
"""Characters of a path: the kernel takes no longer ones (PATH_MAX), but code can be compiled under any name."""


@dataclass(frozen=True, slots=True)
class HandlerFile:
    """A file `name.py`, or a package's `__init__.py`, in a folder of handlers."""

    name: str
    file: Path
    folder: Path

    @property
    def is_helper(self) -> bool:
        """Whether other modules may import it, while it is not imported for itself."""
        return self.name.startswith("_")

    @property
    def shown_file(self) -> str:
        """The path as messages carry it."""
        return encodable(str(self.file), MAX_PATH)

    def problem(self, message: str, line: int = 1, file: str = "") -> Problem:
        """Return a problem of this module, at this file unless another one is named."""
        return problem_at(file or str(self.file), message, line, self.name)


def problem_at(file: str, message: str, line: int = 1, module: str = "") -> Problem:
    """Return a problem whose texts can be sent, whatever they hold."""
    return Problem(encodable(module, MAX_PATH), encodable(file, MAX_PATH), line, encodable(message, MAX_MESSAGE))


def check_folders(folders: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """Return the folders that exist, resolved and each once, and a problem for each of the others."""
    present: dict[Path, None] = {}
    problems = []
    for folder in folders:
        if (why := _closed(folder)) is None:
            present[folder.resolve()] = None
        else:
            problems.append(problem_at(str(folder), f"the handlers folder {folder} {why}", 0))
    return list(present), problems


def _closed(folder: Path) -> str | None:
    """Why a folder cannot be looked into; None when it can."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISDIR(status.st_mode):
        return "is no folder"
    return None if os.access(folder, os.R_OK | os.X_OK) else "cannot be read: Permission denied"


def files_in(folders: Sequence[Path]) -> Iterator[HandlerFile | Problem]:
    """Yield the modules and helpers in these folders, in alphabetical order, and what looks like one but is none."""
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if not path.name.startswith((".", "__")):
                try:
                    found = _classified(path, folder)
                except OSError as error:
                    found = problem_at(str(path), f"it cannot be read: {error.strerror}")
                if found is not None:
                    yield found


def _classified(path: Path, folder: Path) -> HandlerFile | Problem | None:
    """None for what is no module: data, a helper that is not there, a folder that is no package."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return _broken_link(path, error)
    if stat.S_ISDIR(mode):
        init = path / "__init__.py"
        return HandlerFile(path.name, init, folder) if init.is_file() else None
    if path.suffix == ".py":
        if stat.S_ISREG(mode):
            return HandlerFile(path.stem, path, folder)
        return problem_at(str(path), "it is not served: it is no regular file")
    if path.suffix.lower() == ".py" and stat.S_ISREG(mode) and (line := handler_line(path)):
        return problem_at(str(path), "it is not served: its name must end in '.py', in lower case", line)
    return None


def _broken_link(path: Path, error: OSError) -> Problem | None:
    """A link without a target may have been a module, or a folder of modules, unless its name says otherwise."""
    if not path.is_symlink() or path.suffix not in ("", ".py") or path.name.startswith("_"):
        return None
    return problem_at(str(path), f"it is not served: it is a link to {path.readlink()}: {error.strerror}")


def choose(candidates: Sequence[HandlerFile]) -> tuple[list[HandlerFile], list[Problem]]:
    """Tell files that can be imported from those whose names stand in the way.  Called before `sys.path` grows."""
    chosen: dict[str, HandlerFile] = {}
    problems = []
    for module in candidates:
        if (why := _fault_of_name(module, chosen.get(module.name))) is None:
            chosen.setdefault(module.name, module)
        elif why:
            problems.append(module.problem(why))
    return list(chosen.values()), problems


def _fault_of_name(module: HandlerFile, twin: HandlerFile | None) -> str | None:
    """Why a file cannot be imported by its name, empty if that needs no mention; None when it can."""
    if not module.name.isidentifier():
        # A helper that cannot be imported by its name may be a script.
        shown = encodable(module.name, MAX_PATH)
        return "" if module.is_helper else f"'{shown}' is not a module name: use letters, digits and '_'"
    if twin is not None:
        if module.is_helper and _are_equal(module.file, twin.file):
            return None
        kind = "helper" if module.is_helper else "module"
        return f"{kind} {module.name!r} is there twice: {twin.file} is imported instead"
    if other := _namesake(module):
        return f"the name {module.name!r} belongs to {other}: rename the file"
    return None


def _are_equal(one: Path, other: Path) -> bool:
    """Whether two helpers are copies of each other; a package is none, for it is more than its first file."""
    if "__init__.py" in (one.name, other.name):
        return False
    with suppress(OSError):
        return one.read_bytes() == other.read_bytes()
    return False


def _namesake(module: HandlerFile) -> str | None:
    """Name the other module of this name, and import it: our folder will stand in front of it."""
    if module.name in sys.stdlib_module_names:
        other = "Python's standard library"
    else:
        try:
            spec = importlib.util.find_spec(module.name)
        except ValueError:  # a module made by hand, without a spec
            return f"a module that is loaded already ({sys.modules[module.name]!r})"
        if spec is None or spec.origin is None or Path(spec.origin).resolve() == module.file.resolve():
            return None
        other = f"an installed module ({spec.origin})"
    if module.name not in _TALKATIVE:
        with suppress(Exception):  # one that cannot be imported cannot be missed
            importlib.import_module(module.name)
    return other


_TALKATIVE = ("this", "antigravity")
"""What greets its importer, by a poem or by a browser, and is imported by nothing else."""
