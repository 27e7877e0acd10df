"""Finds handlers and imports in a source file without executing it.  No state."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_SOURCE = 1024 * 1024
"""Bytes of the largest file that is parsed; larger files are generated data."""


def handler_line(file: Path) -> int:
    """Return the line of the first handler in `file`; 0 if none is found."""
    source = _read(file)
    if b"supervisor" not in source or b"handler" not in source:  # true for most files; parsing is 100 times slower
        return 0
    tree = _parsed(source)
    if tree is None:
        return 0
    names = set(_decorator_names(tree))
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and _dotted(node.func) in names]
    return min(lines, default=0)


def imports_of(file: Path) -> list[tuple[str, int]]:
    """Return name and line of each absolute import in `file`, including those inside functions.

    `from a import b` may import the module `a.b`, so both names are returned.
    """
    tree = _parsed(_read(file))
    return [] if tree is None else [found for node in ast.walk(tree) for found in _imports(node)]


def _imports(node: ast.AST) -> Iterator[tuple[str, int]]:
    match node:
        case ast.Import(names=names):
            yield from ((name.name, node.lineno) for name in names)
        case ast.ImportFrom(module=str(module), names=names, level=0):
            yield module, node.lineno
            yield from ((f"{module}.{name.name}", node.lineno) for name in names)


def _decorator_names(tree: ast.AST) -> Iterator[str]:
    """Yield the names of our decorator in this file: `handler`, `supervisor.handler`, or an alias."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="supervisor", names=names, level=0):
                yield from (name.asname or name.name for name in names if name.name == "handler")
            case ast.Import(names=names):
                yield from (f"{name.asname or name.name}.handler" for name in names if name.name == "supervisor")


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return f"{name}.{attribute}"
    return ""


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            source = opened.read(MAX_SOURCE + 1)
    except OSError:
        return b""
    return source if len(source) <= MAX_SOURCE else b""


def _parsed(source: bytes) -> ast.AST | None:
    try:
        with _no_collection():
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the errors of the parser for malformed sources
        return None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Run no finalizers of other objects inside the block.

    A finalizer that formats a traceback calls the parser, and then `ast.parse` of Python 3.11 fails
    (python/cpython#106905).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
