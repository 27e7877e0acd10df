"""State dump in the log, for SIGUSR1: the tasks of the parent, and the Python stacks of the jobs.

Runs in the parent.  Tested by tests/flows/test_control.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from types import FrameType

import structlog

from supervisor.attempt.attempt import Attempt
from supervisor.concurrency.coroutine_frames import coroutine_frames

log = structlog.get_logger("dump")

MAX_TASKS = 200
MAX_FRAMES = 8

_HERE = Path(__file__).parents[1]


async def dump(attempts: Iterable[Attempt]) -> None:
    """Log one line for each task and each job."""
    _dump_tasks()
    async with asyncio.TaskGroup() as group:
        for attempt in attempts:
            group.create_task(_dump_job(attempt))


def _dump_tasks() -> None:
    tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
    log.warning("dump", tasks=len(tasks), shown=min(len(tasks), MAX_TASKS))
    for task in tasks[:MAX_TASKS]:
        log.warning("task", name=task.get_name(), at=_where(task))


def _where(task: asyncio.Task[object]) -> str:
    """Return the coroutines that await each other, the innermost last."""
    return " > ".join(islice(map(_describe_frame, coroutine_frames(task.get_coro())), MAX_FRAMES)) or "done"


def _describe_frame(frame: FrameType) -> str:
    return f"{_short(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}"


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(_HERE.parent)) if path.is_relative_to(_HERE) else path.name


async def _dump_job(attempt: Attempt) -> None:
    try:
        stack = await attempt.stack()
    except TimeoutError:
        stack = "its handler has ended" if attempt.is_reporting else "its child does not write it"
    attempt.log.warning("job", stack=stack)
