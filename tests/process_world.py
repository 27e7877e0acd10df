"""Helpers for tests with real processes: a reaper, a zygote of the tested handlers, and a job listener."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec

from supervisor.ipc.messages import Run
from supervisor.ipc.wire import ATTACH_ABOVE_BYTES
from supervisor.job import Blob, Event, Job
from supervisor.linux.memfd import create_sealed
from supervisor.process.child import Child
from supervisor.process.environment import child_environment
from supervisor.process.job_channel import JobReply
from supervisor.process.reaper import Reaper
from supervisor.process.zygote import Zygote, ZygoteConfig
from tests.harness import GENEROUS, HANDLERS


def nursery(*folders: Path, import_timeout: float = GENEROUS, **environment: str) -> ZygoteConfig:
    """Handlers in `folders`, by default those of the tests; `environment` is the supervisor's own."""
    given = {**os.environ, **environment}
    return ZygoteConfig(folders or (HANDLERS,), child_environment(given, ["PASSED"]), import_timeout)


def module(folder: Path, source: str) -> Path:
    """A folder of handlers with one module."""
    folder.mkdir(exist_ok=True)
    (folder / "under_test.py").write_text(dedent(source))
    return folder


def a_job(action: str, **parameters: Any) -> Job:
    encoded = msgspec.json.encode(parameters)
    held = in_a_file(encoded) if len(encoded) > ATTACH_ABOVE_BYTES else encoded
    return Job("job_1", "run_1", "flow", "step", action, 1, "default", held, 30.0)


def in_a_file(parameters: bytes) -> Blob:
    """As a part of the server's answer."""
    before = b'{"parameters":'
    return Blob(create_sealed("answer", [before, parameters, b"}"]), len(parameters), len(before))


@dataclass
class Heard:
    """Listens to a child."""

    events: list[Event] = field(default_factory=list)
    logged: list[tuple[int, str]] = field(default_factory=list)
    loggers: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()

    def on_log(self, level: int, text: str, logger: str) -> None:
        self.logged.append((level, text))
        self.loggers.append(logger)
        self.changed.set()

    def on_line(self, line: str) -> None:
        self.lines.append(line)
        self.changed.set()

    async def until(self, heard: Callable[[], bool]) -> None:
        async with asyncio.timeout(GENEROUS):
            while not heard():
                self.changed.clear()
                await self.changed.wait()

    async def pids(self) -> list[int]:
        """The processes that the handler told it has started, itself included."""
        await self.until(lambda: bool(self.events))
        pids: list[int] = msgspec.json.decode(self.events[0].payload)["pids"]
        return pids


@dataclass
class World:
    """A zygote and the reaper of its children."""

    zygote: Zygote
    reaper: Reaper

    async def child(self, **options: float) -> Child:
        return await Child.start(self.zygote, self.reaper, **options)


async def run(child: Child, action: str, heard: Heard | None = None, **parameters: Any) -> JobReply:
    async with asyncio.timeout(GENEROUS):
        return await child.run(Run(a_job(action, **parameters), "worker 1", "/tmp/nowhere"), heard or Heard())


@asynccontextmanager
async def world(*folders: Path, **environment: str) -> AsyncIterator[World]:
    """A zygote; at the end of the block no process and no descriptor is left of it and of its children."""
    before = open_descriptors()
    reaper = Reaper()
    zygote = await Zygote.start(nursery(*folders, **environment), reaper)
    try:
        yield World(zygote, reaper)
    finally:
        members = [member for member in reaper._members if isinstance(member, Child)]
        for child in members:
            await child.kill()
        await zygote.kill()
        await reaper.kill_orphans()
    assert not reaper._members
    assert not open_descriptors() - before


def open_descriptors() -> set[tuple[str, str]]:
    """What this process holds: number and target of each descriptor, so that a failed test shows which one is left."""
    links = list(Path("/proc/self/fd").iterdir())
    return {(link.name, str(link.readlink())) for link in links if link.is_symlink()}


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Inside the block this process can open so many descriptors, and as many as it closes."""
    gc.collect()  # what earlier tests have left would make room when it is collected in the middle
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(number) for number, _ in open_descriptors())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        taken = list(iter(_one_more, -1))
        for _ in range(count):
            os.close(taken.pop())
        for descriptor in taken:
            stack.callback(os.close, descriptor)
        yield


def _one_more() -> int:
    try:
        return os.open("/dev/null", os.O_RDONLY)
    except OSError:
        return -1
