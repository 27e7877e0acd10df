"""What is installed is all that there is, and rooms know of each other in one direction only."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.sources import OURS, ROOT, parsed

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

LEVELS = [
    {"__main__"},
    {"cli", "demo"},
    {"service"},
    {"control"},
    {"pool", "page"},
    {"attempt"},
    {"reporting"},
    {"dialects", "devserver", "settings", "logs"},
    {"process"},
    {"child"},
    {"handler_api"},
    {"ipc", "concurrency"},
    {"linux"},
    {"stats", "job_server"},
    {"text", "limits", "status", "proxy", "job", "exit_code", "version"},
]
"""The rooms, and the files that are in none: each imports from those below it."""

CHILD_ROOMS = ["child", "ipc", "handler_api", "linux"]
"""The rooms whose code runs in the zygote and in children."""
PARENT_LIBRARIES = {"aiohttp", "uvloop", "click", "psutil", "structlog", "asyncio"}
"""Libraries that children do not load: each child would pay for them, and a fork must copy no thread and no loop."""
ASYNC_HANDLERS = OURS / "child" / "event_loop.py"
"""The one module of children that imports asyncio; a child imports it when it runs its first `async def` handler."""


def test_every_package_is_installed() -> None:
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in OURS.rglob("__init__.py")}

    assert set(SETUPTOOLS["packages"]) == found


def test_every_file_that_is_no_module_is_installed() -> None:
    patterns = SETUPTOOLS["package-data"]
    installed = {file for package, names in patterns.items() for name in names for file in folder(package).glob(name)}
    found = {file for file in OURS.rglob("*") if file.is_file() and "__pycache__" not in file.parts}

    assert {file for file in found if file.suffix != ".py"} == installed


def folder(package: str) -> Path:
    return ROOT.joinpath(*package.split("."))


def test_a_room_imports_from_those_below_it() -> None:
    files = [file for file in OURS.rglob("*.py") if file != OURS / "__init__.py"]  # that one is for authors of handlers
    found = {(room_of(file), other) for file in files for other in imported_by(file)}

    assert {(room, other) for room, other in found if not may_import(room, other)} == set()


def test_children_load_no_libraries_of_the_parent() -> None:
    files = [file for room in CHILD_ROOMS for file in (OURS / room).rglob("*.py") if file != ASYNC_HANDLERS]
    imported = {(file.relative_to(OURS), module) for file in files for module in imported_at_start(file)}

    assert {(file, module) for file, module in imported if module.partition(".")[0] in PARENT_LIBRARIES} == set()
    assert {file for file, module in imported if module == "supervisor.child.event_loop"} == set()


def imported_at_start(file: Path) -> Iterator[str]:
    """The modules that a file imports outside of functions and of `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = [parsed(file)]
    while waiting:
        match waiting.pop():
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() | ast.If(test=ast.Name("TYPE_CHECKING")):
                pass
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module
                yield from (f"{module}.{name.name}" for name in names)
            case node:
                waiting += ast.iter_child_nodes(node)


def may_import(room: str, other: str) -> bool:
    return room == other or level(room) < level(other)


def level(room: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if room in rooms)


def room_of(file: Path) -> str:
    return file.relative_to(OURS).with_suffix("").parts[0]


def imported_by(file: Path) -> Iterator[str]:
    """The rooms of what a file imports from us."""
    for node in ast.walk(parsed(file)):
        match node:
            case ast.ImportFrom(module="supervisor"):
                yield from (name.name for name in node.names if (OURS / name.name).is_dir())
            case ast.ImportFrom(module=str(module)) if module.startswith("supervisor."):
                yield module.split(".")[1]
            case ast.Import():
                yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("supervisor."))
