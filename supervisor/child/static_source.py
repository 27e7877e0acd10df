"""What a source file holds, read without executing it: its handlers, and what it imports.  No state."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_SOURCE = 1024 * 1024
"""Bytes of a file that is looked into; larger ones are data that happens to be Python."""


def handler_line(file: Path) -> int:
    """Return the line of the first handler in `file`; 0 where there is none, or none can be found."""
    source = _read(file)
    if b"supervisor" not in source or b"handler" not in source:  # most files; parsing takes a hundred times longer
        return 0
    tree = _parsed(source)
    if tree is None:
        return 0
    names = set(_decorator_names(tree))
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and _dotted(node.func) in names]
    return min(lines, default=0)


def imports_of(file: Path) -> list[tuple[str, int]]:
    """Return the modules that `file` imports anywhere by absolute names, each with its line.

    `from a import b` may import the module `a.b`, so that is among them.
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
    """How this file writes our decorator: `handler`, `supervisor.handler`, or whatever it calls either."""
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
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # all that the parser raises for odd sources
        return None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Run no finalizers of other objects in the block.

    One that formats a traceback parses, too, and then `ast.parse` of Python 3.11 fails (python/cpython#106905).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
