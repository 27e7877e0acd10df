"""What is installed is all that there is, and rooms know of each other in one direction only."""

from __future__ import annotations

import ast
import gc
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ROOT / "supervisor"
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


def may_import(room: str, other: str) -> bool:
    return room == other or level(room) < level(other)


def level(room: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if room in rooms)


def room_of(file: Path) -> str:
    return file.relative_to(OURS).with_suffix("").parts[0]


def parsed(file: Path) -> ast.AST:
    gc.disable()  # what other tests left must not be finalized meanwhile: python/cpython#106905, in 3.11
    try:
        return ast.parse(file.read_text())
    finally:
        gc.enable()


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
