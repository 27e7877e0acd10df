"""Finds and imports the handler modules.  Runs once, in the main thread of the zygote.

Modules are stored in `sys.modules` and handlers in the registry; failures are returned as problems.  A module that
fails does not prevent the others from being served.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from supervisor.child.handler_files import (
    MAX_PATH,
    HandlerFile,
    check_folders,
    choose,
    files_in,
    problem_at,
)
from supervisor.child.helper_twins import wrong_helper_imports
from supervisor.child.import_leftovers import OpenResources
from supervisor.child.import_problem import import_problem
from supervisor.child.interpreter_state import InterpreterState
from supervisor.child.static_source import imports_of
from supervisor.child.unserved import unserved
from supervisor.handler_api.registry import Conflict, Handler, registry
from supervisor.ipc.messages import MAX_MESSAGE, HandlerInfo, Imported, Importing, Problem
from supervisor.linux.permissions import open_to_all, warning_of
from supervisor.text.printable import encodable

MAX_SUMMARY = 200
"""Characters of the first line of a docstring that are sent to the parent."""


def import_handlers(
    folders: Sequence[Path], announce: Callable[[Importing], object], skipped: Collection[str] = ()
) -> Imported:
    """Import every module of these folders; return the handlers, problems and warnings.

    Modules are the `*.py` files and packages whose names do not begin with `_`, imported by their plain names in
    alphabetical order, with the folders in front of `sys.path`.  `announce` is called before each import, so that the
    parent knows which module has ended the process.  Modules in `skipped` have done so before, and are not imported.
    Raises only what `announce` raises.
    """
    present, problems = check_folders(folders)
    modules, unusable = _modules_of(present)
    problems += unusable
    sys.path[:0] = [str(folder) for folder in present if str(folder) not in sys.path]
    warnings = [warning for folder in present if (warning := warning_of(folder)) is not None]
    with _no_bytecode():
        for module in modules:
            if module.shown_file in skipped:
                continue
            announce(Importing(encodable(module.name, MAX_PATH), module.shown_file))
            if (warning := open_to_all(module.file)) is not None:
                warnings.append(warning)
            more, changes = _import(module, modules)
            problems += more
            warnings += changes
    problems += _dropped_problems(registry.keep(_is_loaded), problems)
    warnings += _merge_twice_imported(modules)
    problems += [_conflict_problem(conflict) for conflict in registry.conflicts()]
    failed = [Path(file).parent for file in [problem.file for problem in problems] + list(skipped)]
    problems += [problem for folder in present for problem in unserved(folder, failed)]
    return Imported(
        handlers=tuple(_info(handler) for handler in registry.handlers()),
        problems=tuple(problems),
        warnings=tuple(encodable(warning, MAX_MESSAGE) for warning in warnings),
    )


def _modules_of(folders: Sequence[Path]) -> tuple[list[HandlerFile], list[Problem]]:
    """Return the modules that can be imported, and a problem for each file that cannot."""
    found = list(files_in(folders))
    problems = [each for each in found if isinstance(each, Problem)]
    candidates = [each for each in found if isinstance(each, HandlerFile)]
    chosen, twins = choose(candidates)
    wrong_imports = wrong_helper_imports(candidates, chosen, twins)
    excluded = {problem.module for problem in wrong_imports}
    modules = [module for module in chosen if not module.is_helper and module.name not in excluded]
    return modules, [*problems, *twins, *wrong_imports]


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Write no `.pyc`: Python compares its time in seconds, so an edit within the same second would not be loaded."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _import(module: HandlerFile, modules: Sequence[HandlerFile]) -> tuple[list[Problem], list[str]]:
    """Import a module; restore interpreter state that it removed; return problems and warnings."""
    before = OpenResources.now()
    state = InterpreterState(other.name for other in modules)
    error = _import_error(module.name)
    restored = state.restore()  # first: the next lines need a working interpreter
    warnings = list(OpenResources.now().warnings_since(before, module.name, module.shown_file))
    if restored:
        names = ", ".join(restored)
        warnings.append(f"module {module.name!r} ({module.file}) changed {names} when it was imported; it was put back")
    if error is None:
        return [], warnings
    _unload(module.name)
    return [import_problem(module, error)], warnings


def _import_error(name: str) -> BaseException | None:
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - users' code, which may even call sys.exit or raise a Ctrl-C
        return error
    return None


def _unload(name: str) -> None:
    """Remove a failed package and its submodules, which importlib keeps."""
    for loaded in [other for other in sys.modules if other == name or other.startswith(f"{name}.")]:
        del sys.modules[loaded]


def _is_loaded(handler: Handler) -> bool:
    return handler.module in sys.modules


def _dropped_problems(dropped: Sequence[Handler], problems: Sequence[Problem]) -> Iterator[Problem]:
    """Yield a problem for each handler of an unloaded module, unless the module has a problem already."""
    known = {problem.module.partition(".")[0] for problem in problems} | {problem.file for problem in problems}
    for handler in dropped:
        if not known & {handler.module.partition(".")[0], handler.file}:
            why = f"action {handler.name!r} is not served: its module {handler.module!r} was not imported to its end"
            yield problem_at(handler.file, why, handler.line, handler.module)


def _merge_twice_imported(modules: Sequence[HandlerFile]) -> Iterator[str]:
    """Keep one handler of a file that was imported under two names, and yield a warning instead of a conflict."""
    plain = {module.name for module in modules}
    for conflict in registry.conflicts():
        if len({(os.path.realpath(claim.file), claim.line) for claim in conflict.claims}) > 1:
            continue
        kept = next((claim for claim in conflict.claims if claim.module in plain), conflict.claims[0])
        others = [claim for claim in conflict.claims if claim is not kept]
        registry.keep(lambda claim, others=others: claim not in others)  # type: ignore[misc]
        for other in others:
            yield (
                f"{kept.file} is imported twice, as {kept.module!r} and as {other.module!r}: "
                f"import {kept.module!r}{_importer_of(other.module, modules)}"
            )


def _importer_of(name: str, modules: Sequence[HandlerFile]) -> str:
    """Return where a handler module imports this name, or an empty text."""
    for module in modules:
        for imported, line in imports_of(module.file):
            if imported == name:
                return f" in {module.file}, line {line}"
    return ""


def _conflict_problem(conflict: Conflict) -> Problem:
    first = conflict.claims[0]
    places = " and by ".join(str(claim) for claim in conflict.claims)
    return problem_at(
        first.file, f"action {conflict.name!r} is claimed by {places}: none serves", first.line, first.module
    )


def _info(handler: Handler) -> HandlerInfo:
    return HandlerInfo(
        action=handler.name,
        module=encodable(handler.module, MAX_PATH),
        file=encodable(handler.file, MAX_PATH),
        line=handler.line,
        limits=handler.limits,
        summary=encodable(handler.summary, MAX_SUMMARY),
    )
