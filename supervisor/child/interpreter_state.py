"""What every import needs of the interpreter, put back when a module has taken it away.  In the zygote."""

from __future__ import annotations

import builtins
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any

_OURS = ("supervisor", "msgspec")


class InterpreterState:
    """The state from before a module was imported."""

    def __init__(self, modules: Iterable[str] = ()) -> None:
        """`modules` names those of our folders: one that is imported already is none of the next one's to remove."""
        self._owned = {*_OURS, *sys.stdlib_module_names, *modules}
        self._lists = {name: list(getattr(sys, name)) for name in ("path", "meta_path", "path_hooks")}
        self._modules = dict(sys.modules)
        self._builtins = dict(vars(builtins))
        self._recursion_limit = sys.getrecursionlimit()

    def restore(self) -> list[str]:
        """Put back what is missing, and leave what was added; return the names of what was put back."""
        restored = [*self._restored_builtins(), *self._restored_lists(), *self._restored_modules()]
        if sys.getrecursionlimit() < self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)
            restored.append("the recursion limit")
        if signal.setitimer(signal.ITIMER_REAL, 0)[0]:  # its signal would end the process that forks the children
            restored.append("the alarm clock")
        return restored

    def _restored_builtins(self) -> Iterator[str]:
        for name, value in self._builtins.items():
            # One callable in the place of another is a wrapper, as `rich` does with `print`.
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
        lost = [name for name, module in self._modules.items() if module and sys.modules.get(name) is None]
        missing = {name: self._modules[name] for name in lost if name.partition(".")[0] in self._owned}
        sys.modules.update(missing)
        if missing:
            yield "sys.modules"


def _forget_paths_without_importer() -> None:
    for path in [path for path, importer in sys.path_importer_cache.items() if importer is None]:
        del sys.path_importer_cache[path]
