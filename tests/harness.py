"""A supervisor under test: the whole program, with real children, against a real server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

from supervisor.devserver.app import DevServer
from supervisor.devserver.call_log import Call
from supervisor.exit_code import ExitCode
from supervisor.linux.syscalls import children_of
from supervisor.process import reaper as family
from supervisor.service.service import serve
from supervisor.settings.credential import CredentialSource
from supervisor.settings.resolution import HostInfo, resolve
from supervisor.settings.settings import Settings

HANDLERS = Path(__file__).parent / "handlers"
PROJECT = "acme"
KEY = "mbx_secret_of_the_tests"
GENEROUS = 20.0
"""Seconds for what takes milliseconds, on a machine that may be busy with other things."""


def settings_for(url: str, state: Path, **changes: str | None) -> Settings:
    """Settings as the command line would make them; `changes` are texts by option, None for its default."""
    given = {"base_url": url, "project": PROJECT, "handlers": str(HANDLERS), "state_dir": str(state), "workers": "2"}
    given["lease_ttl"] = "5s"  # three of the test server's intervals are no time on a busy machine
    machine = HostInfo(cpus=2, host="test", pid=os.getpid(), random=str(time.monotonic_ns()), home=state)
    texts = {name: (text,) for name, text in {**given, **changes}.items() if text is not None}
    return resolve(texts, {}, machine, has_key=True, key_project=None)


class Supervisor:
    """The program in this process and loop."""

    def __init__(self, settings: Settings, environment: dict[str, str]) -> None:
        self.settings = settings
        self._environment = {**os.environ, **environment}
        self.task: asyncio.Task[ExitCode] | None = None

    def start(self) -> None:
        source = CredentialSource(None, {"MOBIUS_API_KEY": KEY})
        self.task = asyncio.create_task(serve(self.settings, source, self._environment), name="supervisor")

    async def exit_code(self) -> ExitCode:
        assert self.task is not None
        async with asyncio.timeout(GENEROUS):
            return await self.task

    @property
    def is_listening(self) -> bool:
        """Whether it reacts to signals: before and after, they would end the tests."""
        return signal.getsignal(signal.SIGQUIT) is not signal.SIG_DFL

    def signal(self, number: signal.Signals) -> None:
        assert self.is_listening
        os.kill(os.getpid(), number)


@asynccontextmanager
async def supervising(
    server: DevServer, state: Path, environment: dict[str, str] | None = None, **changes: str | None
) -> Any:
    """Run a supervisor inside the block; afterwards no process and no task of it is left."""
    children = set(children_of(os.getpid()))
    tasks = asyncio.all_tasks()
    supervisor = Supervisor(settings_for(server.url, state, **changes), environment or {})
    with _marks() as marks:
        supervisor.start()
        assert supervisor.task is not None
        try:
            yield supervisor
            if supervisor.is_listening:
                supervisor.signal(signal.SIGQUIT)
                await supervisor.exit_code()
        finally:
            supervisor.task.cancel()
            await asyncio.wait([supervisor.task])
    # Not what comes to us only now of a program that an earlier test has killed, such as a child in its birth.
    left = [pid for pid in set(children_of(os.getpid())) - children if _mark_of(pid) in marks]
    assert not left, [Path(f"/proc/{pid}/stat").read_text() for pid in left]
    assert not {task for task in asyncio.all_tasks() - tasks if "supervisor" in repr(task.get_coro())}


@asynccontextmanager
async def program(
    url: str, state: Path, prefix: Sequence[str] = (), *, stdin: IO[bytes] | None = None, **changes: str | None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the installed program as a process of its own; its log goes to `state/log`.

    `prefix` is a command that becomes the program, such as `setpriv …`.  An option that is None is left out, one that
    is "" is a switch.
    """
    given = {"handlers": str(HANDLERS), "workers": "2", "base_url": url, "project": PROJECT, "state_dir": str(state)}
    pairs = [(f"--{name.replace('_', '-')}", text) for name, text in {**given, **changes}.items() if text is not None]
    options = [part for pair in pairs for part in pair if part]  # a switch has no text
    state.mkdir(exist_ok=True)
    command = (*prefix, sys.executable, "-m", "supervisor", *options)
    async with started(command, log=state / "log", environment={"MOBIUS_API_KEY": KEY}, stdin=stdin) as process:
        yield process


@asynccontextmanager
async def started(
    command: Sequence[str],
    *,
    log: Path,
    environment: dict[str, str],
    folder: Path | None = None,
    stdin: IO[bytes] | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `command` in a session of its own, in `folder`, with its output at the end of `log`; kill it in the end."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=stdin or asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def start_job(server: DevServer, action: str, parameters: dict[str, Any] | None = None, **step: Any) -> str:
    """Start a run of one step; return its id."""
    steps = [{"name": "only", "action": action, "parameters": parameters or {}, **step}]
    return await server.start_run(PROJECT, {"name": action, "steps": steps})


async def finished_job(server: DevServer, run_id: str, timeout: float = GENEROUS) -> Any:
    """The job of a one-step run, once the run is over."""
    await server.until(lambda: server.run(run_id).status != "active", timeout=timeout)
    return server.jobs(run_id)[-1]


async def event(server: DevServer, run_id: str, type_: str) -> dict[str, Any]:
    """The payload of the first custom event of a type, once there is one."""
    payloads = await server.until(lambda: events(server, run_id, type_) or None, timeout=GENEROUS)
    return payloads[0]


def events(server: DevServer, run_id: str, type_: str) -> list[dict[str, Any]]:
    """The payloads of a run's custom events of one type."""
    return [told["data"] for told in server.events(run_id) if told["type"] == type_]


def calls(server: DevServer, name: str, job_id: str | None = None) -> list[Call]:
    """The calls of one kind, as the server saw them."""
    return [call for call in server.calls if call.name == name and job_id in (None, call.job_id)]


def field_of(call: Call, name: str) -> Any:
    """A field of what a call sends; None as long as that is on its way."""
    return call.body[name] if call.body else None


def reports(server: DevServer, job_id: str) -> list[Call]:
    return calls(server, "complete", job_id)


def result_of(report: Call) -> Any:
    """The decoded result in a complete call."""
    return json.loads(base64.b64decode(report.body["result_b64"]))


async def logged(state: Path, text: str) -> None:
    """Wait until the program's log holds `text`."""
    async with asyncio.timeout(GENEROUS):
        while text not in (state / "log").read_text():
            await asyncio.sleep(0.01)


async def best(measured: Callable[[], Awaitable[float]], *, below: float) -> float:
    """The first of at most ten measured times that is below `below`, else the least one.

    A machine that is busy with other things makes some of them long, a fault of ours makes all of them long.
    """
    taken = []
    while not taken or (min(taken) >= below and len(taken) < 10):
        taken.append(await measured())
    return min(taken)


@contextmanager
def _marks() -> Iterator[list[int]]:
    """The marks that supervisors in this process give to their processes meanwhile."""
    given: list[int] = []
    original = family.new_tag

    def remember() -> int:
        given.append(original())
        return given[-1]

    family.new_tag = remember
    try:
        yield given
    finally:
        family.new_tag = original


def _mark_of(pid: int) -> int:
    return resource.prlimit(pid, resource.RLIMIT_RTTIME)[0]


def zygote_of(supervisor: int) -> int:
    """The process that forks children: older than those of them that are not ready to dump their stacks yet."""
    return min(pid for pid in children_of(supervisor) if _is_zygote(pid))


def _is_zygote(pid: int) -> bool:
    """True unless the process is a child that runs jobs, another program, or has ended by now."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        command, status = Path(f"/proc/{pid}/cmdline").read_text(), Path(f"/proc/{pid}/status").read_text()
        return "zygote_main" in command and not _catches(status, signal.SIGUSR1)
    return False


def _catches(status: str, number: signal.Signals) -> bool:
    (mask,) = re.findall(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
    return bool(int(mask, 16) >> (number - 1) & 1)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def timed() -> Iterator[list[float]]:
    """Yield a list that holds the seconds the block took, once it is over."""
    taken: list[float] = []
    began = time.monotonic()
    yield taken
    taken.append(time.monotonic() - began)
