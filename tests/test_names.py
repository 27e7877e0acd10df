"""Names in docstrings and comments: what stands in back-ticks and looks like a name of ours is one."""

from __future__ import annotations

import ast
import builtins
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import OURS, ROOT, parsed

FILES = sorted(OURS.rglob("*.py"))
FOREIGN = {"Fraction", "KB", "SystemRandom", "EMPTY_PAYLOAD", "SCM_RIGHTS", "SIGSEGV"}
"""Names of the kernel and of libraries that no code of ours mentions."""
NAME = re.compile(r"`([A-Z][A-Za-z]+|[A-Z][A-Z_]*_[A-Z_]+)`")
"""A class or a constant; words of one kind of letter (`SIGTERM`) are the kernel's."""


def names_in(file: Path) -> Iterator[str]:
    for node in ast.walk(parsed(file)):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
                yield name
            case ast.Constant(value=str(text)):
                yield from re.findall(r"\w+", text) if " " not in text else ()


def prose_of(file: Path) -> Iterator[str]:
    """The docstrings and comments of a file."""
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""')):
            yield token.string


@pytest.fixture(scope="module")
def known() -> set[str]:
    return {name for file in FILES for name in names_in(file)} | set(dir(builtins)) | FOREIGN


def test_each_name_in_back_ticks_exists(known: set[str]) -> None:
    named = {
        (str(file.relative_to(ROOT)), name) for file in FILES for text in prose_of(file) for name in NAME.findall(text)
    }

    assert {(file, name) for file, name in named if name not in known} == set()
