"""Sources are parsed without executing them, even if finalizers of other objects run."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.child.static_source import handler_line, imports_of

HANDLER = "@handler('h{0}')\ndef h{0}(x: int = {0}) -> int:\n    return x + {0}\n"
SOURCE = "import json\nfrom supervisor import handler\n\n\n" + "\n".join(map(HANDLER.format, range(200)))


class ParsesWhenFinalized:
    """An object in a cycle: the garbage collector may run its finalizer at any time, and the finalizer parses."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        ast.parse("a + b")


@pytest.fixture
def eager_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(5)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("eager_collector")
def test_a_source_is_parsed_while_finalizers_of_other_objects_parse_too(tmp_path: Path) -> None:
    (file := tmp_path / "module.py").write_text(SOURCE)

    for _ in range(10):
        garbage = [ParsesWhenFinalized() for _ in range(50)]
        del garbage

        assert handler_line(file) == 5
        assert imports_of(file)[0] == ("json", 1)
    assert gc.isenabled()
