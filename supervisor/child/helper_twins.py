"""Modules that would import a helper of another folder.  Found before the import, from the sources.

All folders share `sys.modules`, so `import _shared` imports the `_shared.py` of the first folder everywhere.
Tested by tests/child/test_handler_import.py.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from supervisor.child.handler_files import HandlerFile
from supervisor.child.static_source import imports_of
from supervisor.ipc.messages import Problem


def wrong_helper_imports(
    candidates: Sequence[HandlerFile], chosen: Sequence[HandlerFile], twins: Sequence[Problem]
) -> list[Problem]:
    """Return a problem for each chosen module that would import a file of another folder instead of its own helper.

    `twins` are the problems of the files that were not chosen.  Imports are followed within the folder of the module.
    """
    twin_files = {problem.file for problem in twins}
    hidden = [candidate for candidate in candidates if str(candidate.file) in twin_files]
    names = {module.name: module.file for module in chosen}
    problems = []
    for folder in {file.folder: None for file in hidden}:
        shadowed = {file.name: file for file in hidden if file.folder == folder and file.name in names}
        present = {file.name: file for file in chosen if file.folder == folder}
        for module in present.values():
            found = None if module.is_helper else _first_import_of(shadowed, module, present)
            if found is not None:
                place, line, name = found
                why = f"it would import {names[name]} instead of {shadowed[name].file}: rename one of them"
                problems.append(module.problem(why, line, str(place)))
    return problems


def _first_import_of(
    shadowed: Container[str], module: HandlerFile, present: dict[str, HandlerFile]
) -> tuple[Path, int, str] | None:
    """Return file, line and name of the first import of a shadowed name by the module or by its own helpers."""
    waiting, seen = [module], {module.name}
    while waiting:
        for source in _sources(waiting.pop()):
            for dotted, line in imports_of(source):
                name = dotted.partition(".")[0]
                if name in shadowed:
                    return source, line, name
                if name in present and name not in seen:
                    seen.add(name)
                    waiting.append(present[name])
    return None


def _sources(module: HandlerFile) -> Iterator[Path]:
    """Yield the file of the module, or all files of the package."""
    if module.file.name == "__init__.py":
        yield from sorted(module.file.parent.rglob("*.py"))
    else:
        yield module.file
