"""The published SDK's worker with eight threads: `python -m benchmarks.sdk_worker URL [--without-stall]`.

Its thread for events waits up to 0.25 s after each job before it looks whether the job is over.  Without the stall it
waits for that only; the job of this benchmark emits nothing.
"""

from __future__ import annotations

import argparse
import threading
from typing import Any

from deepnoodle.mobius import Client, ClientOptions, Worker, WorkerPool, WorkerPoolConfig

THREADS = 8


def _nothing(_parameters: dict[str, Any]) -> None:
    return None


def _wait_for_the_end(_worker: Worker, _job: Any, _events: Any, stop: threading.Event) -> None:
    stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--without-stall", action="store_true")
    options = parser.parse_args()
    if options.without_stall:
        Worker._event_loop = _wait_for_the_end  # noqa: SLF001 - the stall is in there
    client = Client(ClientOptions(base_url=options.url, api_key="mbx_bench", project="bench"))
    pool = WorkerPool(client, WorkerPoolConfig(count=THREADS, queues=["default"], actions=["trivial"]))
    pool.register("trivial", _nothing)
    pool.run()


if __name__ == "__main__":
    main()
