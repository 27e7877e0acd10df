"""Files below a folder of handlers that define a handler and were not imported.  Searched once, after the imports.

Tested by tests/child/test_handler_import.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from supervisor.child.handler_files import problem_at
from supervisor.child.static_source import handler_line
from supervisor.ipc.messages import Problem

MAX_ENTRIES = 5000
"""Files and folders searched below one folder of handlers; a folder of data may hold millions."""


def unserved(folder: Path, failed: Sequence[Path]) -> Iterator[Problem]:
    """Yield a problem for each source file below `folder` that defines a handler and was not imported.

    Folders in `failed` are skipped: their packages already have a problem.
    """
    loaded = _loaded_files()
    for file in _sources_below(folder, failed):
        if os.path.realpath(file) not in loaded and (line := handler_line(file)):
            yield problem_at(str(file), f"the handler is not served: {_reason(file, folder)}", line)


def _sources_below(folder: Path, failed: Sequence[Path]) -> Iterator[Path]:
    """Yield the Python files in subfolders of `folder`, except hidden files and helpers."""
    seen = 0
    for place, folders, files in os.walk(folder, followlinks=False):
        at_top = Path(place) == folder
        links = [name for name in folders if at_top and (folder / name).is_symlink()]
        folders[:] = sorted(name for name in folders if _is_wanted(name) and Path(place, name) not in failed)
        seen += len(folders) + len(files)
        if not at_top:
            yield from (Path(place, name) for name in sorted(files) if name.endswith(".py") and _is_wanted(name))
        for name in filter(_is_wanted, links):  # links are followed at the top only: deeper ones could form a cycle
            yield from sorted(file for file in (folder / name).glob("*.py") if _is_wanted(file.name))
        if seen > MAX_ENTRIES:
            return


def _is_wanted(name: str) -> bool:
    return name == "__init__.py" or not name.startswith((".", "_"))


def _reason(file: Path, folder: Path) -> str:
    top = folder / file.relative_to(folder).parts[0]
    if (top / "__init__.py").is_file():
        return f"nothing imports this file; import it in {top / '__init__.py'}"
    return f"{top} has no __init__.py; add one that imports this file"


def _loaded_files() -> set[str]:
    """The real paths of all modules that were imported from files."""
    files = set()
    for module in list(sys.modules.values()):
        with suppress(Exception):  # a module may have replaced itself by any object
            if isinstance(file := module.__file__, str):
                files.add(os.path.realpath(file))
    return files
