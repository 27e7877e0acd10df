"""Interpreter state that every import needs: restored after a module has removed it.  Runs in the zygote.

Tested by tests/child/test_handler_authors.py.
"""

from __future__ import annotations

import builtins
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any

_OURS = ("supervisor", "msgspec")


class InterpreterState:
    """The state before the import of a module."""

    def __init__(self, modules: Iterable[str] = ()) -> None:
        """`modules` are the names of all handler modules: a module must not unload one that was imported before it."""
        self._owned = {*_OURS, *sys.stdlib_module_names, *modules}
        self._lists = {name: list(getattr(sys, name)) for name in ("path", "meta_path", "path_hooks")}
        self._modules = dict(sys.modules)
        self._builtins = dict(vars(builtins))
        self._recursion_limit = sys.getrecursionlimit()

    def restore(self) -> list[str]:
        """Restore what is missing and keep what was added; return the names of what was restored."""
        restored = [*self._restored_builtins(), *self._restored_lists(), *self._restored_modules()]
        if sys.getrecursionlimit() < self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)
            restored.append("the recursion limit")
        if signal.setitimer(signal.ITIMER_REAL, 0)[0]:  # SIGALRM would end the zygote
            restored.append("the alarm clock")
        return restored

    def _restored_builtins(self) -> Iterator[str]:
        for name, value in self._builtins.items():
            # A callable in place of another one is a wrapper, as `rich` does with `print`.
            if callable(value) and not callable(vars(builtins).get(name)):
                setattr(builtins, name, value)
                yield f"builtins.{name}"

    def _restored_lists(self) -> Iterator[str]:
        for name, before in self._lists.items():
            now: Any = getattr(sys, name)
            missing = [entry for entry in before if entry not in now] if isinstance(now, list) else before
            if missing:
                setattr(sys, name, [*now, *missing] if isinstance(now, list) else missing)
                _forget_paths_without_importer()
                yield f"sys.{name}"

    def _restored_modules(self) -> Iterator[str]:
        unloaded = [name for name, module in self._modules.items() if module and sys.modules.get(name) is None]
        missing = {name: self._modules[name] for name in unloaded if name.partition(".")[0] in self._owned}
        sys.modules.update(missing)
        if missing:
            yield "sys.modules"


def _forget_paths_without_importer() -> None:
    for path in [path for path, importer in sys.path_importer_cache.items() if importer is None]:
        del sys.path_importer_cache[path]
