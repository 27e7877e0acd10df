"""The jobs of the comparison by the published SDK: `python -m benchmarks.comparison.sdk URL WORKERS [MODULE]`.

The module is one to be imported first.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from deepnoodle.mobius import Client, ClientOptions, WorkerPool, WorkerPoolConfig

from benchmarks.comparison.handlers._jobs import JOBS


def _action(function: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda parameters: function(**parameters)


def main() -> None:
    url, workers, *modules = sys.argv[1:]
    for each in modules:
        importlib.import_module(each)
    client = Client(ClientOptions(base_url=url, api_key="mbx_bench", project="bench"))
    pool = WorkerPool(client, WorkerPoolConfig(count=int(workers), queues=["default"], actions=list(JOBS)))
    for name, function in JOBS.items():
        pool.register(name, _action(function))
    pool.run()


if __name__ == "__main__":
    main()
