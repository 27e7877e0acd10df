"""The identity of the program on a pipe: its version and the shape of its messages.  In the parent and in the zygote.

The program may be replaced on disk while it runs.  A zygote that starts then runs other code than its parent, and the
two may not understand each other's messages.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import msgspec

from supervisor import job, limits, version
from supervisor.ipc import messages
from supervisor.linux import confinement

_VERSION = re.compile(r'__version__\s*=\s*"([^"]+)"')


@lru_cache
def identity() -> messages.Hello:
    """Return the identity of this process."""
    return messages.Hello(version.__version__, zlib.crc32("\n".join(_shapes()).encode()))


def _shapes() -> Iterator[str]:
    """Yield every struct that crosses a pipe, or is passed to a zygote, with its fields, their types and defaults."""
    for module in (job, limits, confinement, messages):
        for name, value in sorted(vars(module).items()):
            if isinstance(value, type) and issubclass(value, msgspec.Struct):
                yield f"{name} {value.__annotations__} {value.__struct_defaults__}"


def difference(other: messages.Hello | None) -> str | None:
    """Return the advice for a zygote with the identity `other` (None: unknown); None when it runs the same program."""
    if other == identity():
        return None
    ours, theirs = version.__version__, other.version if other is not None else _version_on_disk()
    if other is None and theirs == ours:
        return None
    return f"the program on disk is another one (version {theirs}) than the one that runs (version {ours}): restart it"


def _version_on_disk() -> str:
    """Return the version of the program on disk; the running version when the file cannot be read."""
    try:
        found = _VERSION.search(Path(version.__file__).read_text())
    except OSError:
        return version.__version__
    return found[1] if found else version.__version__
