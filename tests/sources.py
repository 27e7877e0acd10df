"""The source files of the program, for tests of their structure."""

from __future__ import annotations

import ast
import gc
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ROOT / "supervisor"


def parsed(file: Path) -> ast.Module:
    gc.disable()  # objects of other tests must not be finalized meanwhile: python/cpython#106905, in 3.11
    try:
        return ast.parse(file.read_text())
    finally:
        gc.enable()
