"""Classifies the files in folders of handlers: modules, helpers, and files that cannot be imported.

Runs in the zygote before the handlers are imported.  It imports only installed modules whose names a file has taken.
Tested by tests/child/test_handler_import.py.
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
"""Characters of a path: the limit of the kernel (PATH_MAX), although code can be compiled under any file name."""


@dataclass(frozen=True, slots=True)
class HandlerFile:
    """A file `name.py`, or a package's `__init__.py`, in a folder of handlers."""

    name: str
    file: Path
    folder: Path

    @property
    def is_helper(self) -> bool:
        """True if the file is imported only by other modules."""
        return self.name.startswith("_")

    @property
    def shown_file(self) -> str:
        """The path as it is encoded in messages."""
        return encodable(str(self.file), MAX_PATH)

    def problem(self, message: str, line: int = 1, file: str = "") -> Problem:
        """Return a problem of this module, located in `file` if given, otherwise in its own file."""
        return problem_at(file or str(self.file), message, line, self.name)


def problem_at(file: str, message: str, line: int = 1, module: str = "") -> Problem:
    """Return a problem whose texts are shortened and can be encoded."""
    return Problem(encodable(module, MAX_PATH), encodable(file, MAX_PATH), line, encodable(message, MAX_MESSAGE))


def check_folders(folders: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """Return the folders that exist, resolved and each once, and a problem for each of the others."""
    present: dict[Path, None] = {}
    problems = []
    for folder in folders:
        if (reason := _unreadable(folder)) is None:
            present[folder.resolve()] = None
        else:
            problems.append(problem_at(str(folder), f"the handlers folder {folder} {reason}", 0))
    return list(present), problems


def _unreadable(folder: Path) -> str | None:
    """Return the reason why a folder cannot be listed; None if it can."""
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
    """Yield the modules and helpers of each folder in alphabetical order, and a problem for each unusable file."""
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if not path.name.startswith((".", "__")):
                try:
                    found = _classify(path, folder)
                except OSError as error:
                    found = problem_at(str(path), f"it cannot be read: {error.strerror}")
                if found is not None:
                    yield found


def _classify(path: Path, folder: Path) -> HandlerFile | Problem | None:
    """Return None for data files, missing helpers and folders that are no package."""
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
    """Return a problem for a dangling link whose name could be that of a module or package."""
    if not path.is_symlink() or path.suffix not in ("", ".py") or path.name.startswith("_"):
        return None
    return problem_at(str(path), f"it is not served: it is a link to {path.readlink()}: {error.strerror}")


def choose(candidates: Sequence[HandlerFile]) -> tuple[list[HandlerFile], list[Problem]]:
    """Return the files that can be imported, and problems of name for the others.  Called before `sys.path` changes."""
    chosen: dict[str, HandlerFile] = {}
    problems = []
    for module in candidates:
        if (reason := _name_problem(module, chosen.get(module.name))) is None:
            chosen.setdefault(module.name, module)
        elif reason:
            problems.append(module.problem(reason))
    return list(chosen.values()), problems


def _name_problem(module: HandlerFile, twin: HandlerFile | None) -> str | None:
    """Return why the name of a file prevents its import, or None.  An empty reason is not reported."""
    if not module.name.isidentifier():
        # A helper whose name is no identifier may be a script.
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
    """True if two helpers are copies of each other.  Packages never are: only their first files would be compared."""
    if "__init__.py" in (one.name, other.name):
        return False
    with suppress(OSError):
        return one.read_bytes() == other.read_bytes()
    return False


def _namesake(module: HandlerFile) -> str | None:
    """Return a description of another module with this name, and import that module while `sys.path` still finds it."""
    if module.name in sys.stdlib_module_names:
        other = "Python's standard library"
    else:
        try:
            spec = importlib.util.find_spec(module.name)
        except ValueError:  # a loaded module without a spec
            return f"a module that is loaded already ({sys.modules[module.name]!r})"
        if spec is None or spec.origin is None or Path(spec.origin).resolve() == module.file.resolve():
            return None
        other = f"an installed module ({spec.origin})"
    if module.name not in _IMPORTS_WITH_SIDE_EFFECTS:
        with suppress(Exception):  # a module that fails to import is not needed
            importlib.import_module(module.name)
    return other


_IMPORTS_WITH_SIDE_EFFECTS = ("this", "antigravity")
"""Modules that print a poem or open a browser when imported.  No other module imports them."""
