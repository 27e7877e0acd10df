"""How the handler modules are found and imported.  In the zygote, once, in its main thread.

It owns nothing: modules land in `sys.modules`, handlers in the registry, and what failed is told as values.  One module
that fails never keeps the others from being served.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from supervisor.handling.handler import Conflict, Handler, registry
from supervisor.process.error_text import text_of, traceback_of, type_of
from supervisor.process.import_leftovers import Openings
from supervisor.process.messages import HandlerInfo, Imported, Importing, Problem


@dataclass(frozen=True, slots=True)
class _Module:
    """A file `name.py`, or a package's `__init__.py`, in a folder of handlers."""

    name: str
    file: Path
    folder: Path

    def problem(self, message: str, trace: str = "") -> Problem:
        return Problem(self.name, str(self.file), 1, message, trace)


def import_handlers(folders: Sequence[Path], announce: Callable[[Importing], object]) -> Imported:
    """Import every module of these folders and say what handlers there are and what went wrong.

    Modules are the `*.py` files and packages whose names do not begin with `_`, imported by their plain names in
    alphabetical order, with the folders in front of `sys.path`.  `announce` is called before each of them: when one
    ends the process nobody else can tell which.  Lets `KeyboardInterrupt` through, and what `announce` raises, nothing
    else.
    """
    present, missing = _check_folders(folders)
    modules, unusable = _choose([module for folder in present for module in _modules_in(folder)])
    problems = missing + unusable
    sys.path[:0] = [str(folder) for folder in present if str(folder) not in sys.path]
    warnings = [warning for folder in present if (warning := _open_door(folder)) is not None]
    with _no_bytecode():
        for module in modules:
            announce(Importing(module.name, str(module.file)))
            before = Openings.now()
            if (warning := _open_door(module.file)) is not None:
                warnings.append(warning)
            problems.extend(_import(module))
            warnings.extend(Openings.now().warnings_since(before, module.name, str(module.file)))
    registry.keep(_is_loaded)
    problems.extend(_conflict_problem(conflict) for conflict in registry.conflicts())
    return Imported(
        handlers=tuple(_info(handler) for handler in registry.handlers()),
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def _check_folders(folders: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """Return the folders that exist, resolved and each once, and a problem for each of the others."""
    present: dict[Path, None] = {}
    problems = []
    for folder in folders:
        if (why := _closed(folder)) is None:
            present[folder.resolve()] = None
        else:
            problems.append(Problem("", str(folder), 0, f"the handlers folder {folder} {why}"))
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


def _modules_in(folder: Path) -> Iterator[_Module]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")):
            continue
        if path.suffix == ".py" and path.is_file():
            yield _Module(path.stem, path, folder)
        elif (path / "__init__.py").is_file():
            yield _Module(path.name, path / "__init__.py", folder)


def _choose(candidates: list[_Module]) -> tuple[list[_Module], list[Problem]]:
    """Tell modules that can be imported from those whose names stand in the way.  Called before `sys.path` grows."""
    chosen: dict[str, _Module] = {}
    problems = []
    for module in candidates:
        twin = chosen.get(module.name)
        if not module.name.isidentifier():
            problems.append(module.problem(f"{module.name!r} is not a module name: use letters, digits and '_'"))
        elif twin is not None:
            problems.append(module.problem(f"module {module.name!r} is there twice: {twin.file} is imported instead"))
        elif other := _namesake(module):
            problems.append(module.problem(f"the name {module.name!r} belongs to {other}: rename the file"))
        else:
            chosen[module.name] = module
    return list(chosen.values()), problems


def _namesake(module: _Module) -> str | None:
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
    with suppress(Exception):  # one that cannot be imported cannot be missed
        importlib.import_module(module.name)
    return other


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Write no `.pyc`: it is matched by the second, and an edit may be reloaded within the second."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _import(module: _Module) -> list[Problem]:
    try:
        importlib.import_module(module.name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - users' code, which may even call sys.exit
        _unload(module.name)
        return [_import_problem(module, error)]
    return []


def _open_door(path: Path) -> str | None:
    """A warning if anybody may change what is to be imported.  It is served: some images have such modes everywhere."""
    with suppress(OSError):
        if path.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            return f"{path} can be changed by every user of this machine: chmod o-w is safer"
    return None


def _unload(name: str) -> None:
    """Take away the submodules, which importlib leaves behind when only their package failed."""
    for loaded in [other for other in sys.modules if other == name or other.startswith(f"{name}.")]:
        del sys.modules[loaded]


def _is_loaded(handler: Handler) -> bool:
    return handler.module in sys.modules


def _import_problem(module: _Module, error: BaseException) -> Problem:
    try:
        told = _without_machinery(traceback.TracebackException.from_exception(error))
        file, line = _place(module, error, told)
        problem = Problem(module.name, file, line, _sentence(error, told), "".join(told.format()))
        msgspec.msgpack.encode(problem)  # attributes of an error may be of any type, its text of any characters
    except Exception:  # noqa: BLE001 - users' exceptions, of which Python itself cannot write each
        sentence = f"{type_of(error)}: {text_of(error)}".partition("\n")[0]
        trace = traceback_of(error, error.__traceback__)
        return module.problem(_encodable(sentence), _encodable(trace))
    return problem


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _without_machinery(told: traceback.TracebackException) -> traceback.TracebackException:
    """Strip the frames of importlib and of this file, from this exception and those behind it."""
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if not _is_machinery(frame.filename)])
    for other in (told.__cause__, told.__context__):
        if other is not None:
            _without_machinery(other)
    return told


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or filename in {importlib.__file__, __file__}


def _place(module: _Module, error: BaseException, told: traceback.TracebackException) -> tuple[str, int]:
    """Return the deepest line that the authors of the folder can mend."""
    places = [(frame.filename, frame.lineno or 1) for frame in told.stack]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno or 1))
    inside = [place for place in places if Path(place[0]).is_relative_to(module.folder)]
    return inside[-1] if inside else (str(module.file), 1)


def _sentence(error: BaseException, told: traceback.TracebackException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r}) when it was imported"
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    return next(iter(told.format_exception_only())).partition("\n")[0]


def _conflict_problem(conflict: Conflict) -> Problem:
    first = conflict.claims[0]
    places = " and by ".join(str(claim) for claim in conflict.claims)
    return Problem(
        first.module, first.file, first.line, f"action {conflict.name!r} is claimed by {places}: none serves"
    )


def _info(handler: Handler) -> HandlerInfo:
    return HandlerInfo(
        action=handler.name,
        module=handler.module,
        file=handler.file,
        line=handler.line,
        limits=handler.limits,
        summary=handler.summary,
    )
