"""Modules that would be given the helper of another folder.  Decided before the import, from the sources.

All folders share one list of modules, so `import _shared` means the `_shared.py` of the first folder everywhere.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from supervisor.child.handler_files import HandlerFile
from supervisor.child.static_source import imports_of
from supervisor.ipc.messages import Problem


def misled(candidates: Sequence[HandlerFile], chosen: Sequence[HandlerFile], twins: Sequence[Problem]) -> list[Problem]:
    """Return a problem for each chosen module that imports a name of which another folder's file comes first.

    `twins` are the problems of files that are not chosen; also what such a module imports is looked into.
    """
    unwanted = {problem.file for problem in twins}
    hidden = [candidate for candidate in candidates if str(candidate.file) in unwanted]
    names = {module.name: module.file for module in chosen}
    problems = []
    for folder in {file.folder: None for file in hidden}:
        lost = {file.name: file for file in hidden if file.folder == folder and file.name in names}
        present = {file.name: file for file in chosen if file.folder == folder}
        for module in present.values():
            found = None if module.is_helper else _first_import_of(lost, module, present)
            if found is not None:
                place, line, name = found
                why = f"it would import {names[name]} instead of {lost[name].file}: rename one of them"
                problems.append(module.problem(why, line, str(place)))
    return problems


def _first_import_of(
    lost: Container[str], module: HandlerFile, present: dict[str, HandlerFile]
) -> tuple[Path, int, str] | None:
    """Where a module, or what it imports of its own folder, imports one of the names `lost`."""
    waiting, seen = [module], {module.name}
    while waiting:
        for source in _sources(waiting.pop()):
            for dotted, line in imports_of(source):
                name = dotted.partition(".")[0]
                if name in lost:
                    return source, line, name
                if name in present and name not in seen:
                    seen.add(name)
                    waiting.append(present[name])
    return None


def _sources(module: HandlerFile) -> Iterator[Path]:
    """The file, or all those of a package."""
    if module.file.name == "__init__.py":
        yield from sorted(module.file.parent.rglob("*.py"))
    else:
        yield module.file
