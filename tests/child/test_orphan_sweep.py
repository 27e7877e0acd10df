"""When a supervisor is killed, no process that its jobs have started survives."""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from supervisor.child.orphan_sweep import kill_tagged
from supervisor.linux.process_tag import has_tag, new_tag, tagged_pids
from tests.harness import GENEROUS, HANDLERS
from tests.process_world import module

SUPERVISOR = """
import asyncio, json, sys
from supervisor.process.child import Child
from supervisor.process.reaper import Reaper
from supervisor.ipc.messages import Run
from supervisor.process.zygote import Zygote
from tests.process_world import Heard, a_job, nursery

async def main():
    reaper = Reaper()
    zygote = await Zygote.start(nursery(), reaper)
    pids = [zygote.pid]
    async with asyncio.TaskGroup() as group:
        for action in sys.argv[1:]:
            child, heard = await Child.start(zygote, reaper), Heard()
            group.create_task(child.run(Run(a_job(action), "w", "/tmp/nowhere"), heard))
            pids += await heard.pids()
        print(json.dumps([reaper.tag, *pids]), flush=True)

asyncio.run(main())
"""
LOADING = """
import asyncio, sys
from pathlib import Path
from supervisor.process.reaper import Reaper
from supervisor.process.zygote import Zygote
from tests.process_world import nursery

asyncio.run(Zygote.start(nursery(Path(sys.argv[1])), Reaper()))
"""


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as started:
        try:
            yield started
        finally:
            started.kill()


def wait_for_exit_of(pids: list[int]) -> None:
    """Wait until all processes have exited; reap those that became our children."""
    for pid in pids:
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            ended, _, _ = select.select([pidfd], [], [], GENEROUS)
            os.close(pidfd)
            assert ended, pid
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


@pytest.mark.parametrize(
    "actions",
    [
        ["c-call", "ignores-sigterm"],
        ["with-subprocess", "with-own-session", "with-daemon"],
        [],
    ],
)
def test_a_supervisor_that_was_killed_leaves_no_process_behind(actions: list[str]) -> None:
    with process(sys.executable, "-c", SUPERVISOR, *actions) as supervisor:
        assert supervisor.stdout is not None
        tag, *pids = json.loads(supervisor.stdout.readline())
        assert set(pids) <= set(tagged_pids(tag))

        supervisor.kill()

        wait_for_exit_of(pids)
        assert list(tagged_pids(tag)) == []


def test_a_zygote_that_still_imports_dies_with_its_supervisor(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    module(tmp_path, f"import os\nopen({str(pipe)!r}, 'w').write(str(os.getpid()))\nwhile True: pass")
    with process(sys.executable, "-c", LOADING, str(tmp_path)) as supervisor:
        pid = int(pipe.read_text())

        supervisor.kill()

        wait_for_exit_of([pid])


SET_TAG = """
import os, sys
from supervisor.linux.process_tag import set_tag
set_tag(int(sys.argv[1]))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def tagged(tag: int, *command: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Start a process with this tag."""
    return process(sys.executable, "-c", SET_TAG, str(tag), *command)


def test_all_descendants_inherit_the_tag() -> None:
    tag = new_tag()
    hidden = f"{sys.executable} -c 'import os, time; print(os.getpid(), flush=True); time.sleep(3600)'"

    with tagged(tag, "sh", "-c", f"setsid env -i {hidden} & wait") as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())

        assert set(tagged_pids(tag)) == {started.pid, pid}
        kill_tagged(tag)

    assert list(tagged_pids(tag)) == []
    wait_for_exit_of([pid])


def test_only_tagged_processes_are_killed() -> None:
    tag, other = new_tag(), new_tag()
    talk = "echo; exec sleep 3600"
    with tagged(tag, "sh", "-c", talk) as ours, tagged(other, "sh", "-c", talk) as theirs:
        for one in (ours, theirs):
            assert one.stdout is not None
            one.stdout.readline()

        kill_tagged(tag)

        assert ours.wait(GENEROUS) == -9
        assert has_tag(theirs.pid, other)


def test_tags_are_unique_and_limit_no_process() -> None:
    tags = {new_tag() for _ in range(100)}

    assert len(tags) == 100
    assert min(tags) / 1e6 / 86400 / 365 > 10_000  # years
    assert max(tags) < resource.RLIM_INFINITY % 2**64


def test_a_sweep_does_not_kill_its_own_process() -> None:
    tag = new_tag()
    imports = "from supervisor.child.orphan_sweep import kill_tagged; from supervisor.linux.process_tag import set_tag"
    program = f"{imports}; set_tag({tag}); kill_tagged({tag}); print('alive')"

    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, cwd=HANDLERS.parents[1], timeout=GENEROUS
    )

    assert done.stdout == b"alive\n"
