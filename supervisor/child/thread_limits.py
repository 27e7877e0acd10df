"""How many threads numeric libraries use in a child.  Runs in the child, and its names in the parent's zygote start.

Eight children that each start a thread for every CPU slow each other down; so each gets its share.
"""

from __future__ import annotations

import os
import sys

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""What the libraries read when they are loaded."""


def apply(threads: int) -> None:
    """Have libraries that are loaded from now on use so many threads; those that are loaded already where possible.

    A loaded library can be told by `threadpoolctl` only, if the environment of the handlers has it.
    """
    os.environ.update(dict.fromkeys(VARIABLES, str(threads)))
    if "numpy" in sys.modules or "torch" in sys.modules:
        _tell_loaded_libraries(threads)


def _tell_loaded_libraries(threads: int) -> None:
    try:
        import threadpoolctl  # type: ignore[import-not-found]  # the handlers' environment may have it
    except ImportError:
        return
    threadpoolctl.threadpool_limits(limits=threads)
