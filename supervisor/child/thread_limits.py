"""The number of threads that numeric libraries use.  `apply` runs in the child; the parent uses `VARIABLES`.

Eight children that each start one thread per CPU slow each other down, so each gets a share of the CPUs.
Tested by tests/process/test_child.py.
"""

from __future__ import annotations

import os
import sys

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Environment variables that the libraries read when they are loaded."""


def apply(threads: int) -> None:
    """Limit the threads of libraries that are loaded later, and of loaded ones if possible.

    Loaded libraries can be limited only by `threadpoolctl`, if it is installed beside the handlers.
    """
    os.environ.update(dict.fromkeys(VARIABLES, str(threads)))
    if "numpy" in sys.modules or "torch" in sys.modules:
        _limit_loaded_libraries(threads)


def _limit_loaded_libraries(threads: int) -> None:
    try:
        import threadpoolctl  # type: ignore[import-not-found]  # optional, installed by users
    except ImportError:
        return
    threadpoolctl.threadpool_limits(limits=threads)
