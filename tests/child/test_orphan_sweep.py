"""When a supervisor dies without a word, nothing of what its jobs have started is left."""

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

from supervisor.child import orphan_sweep as guard
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


def wait_for_the_end_of(pids: list[int]) -> None:
    """Until all of them have ended; those that became ours are reaped."""
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
        mark, *pids = json.loads(supervisor.stdout.readline())
        assert set(pids) <= set(tagged_pids(mark))

        supervisor.kill()

        wait_for_the_end_of(pids)
        assert list(tagged_pids(mark)) == []


def test_a_zygote_that_still_imports_dies_with_its_supervisor(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    module(tmp_path, f"import os\nopen({str(told)!r}, 'w').write(str(os.getpid()))\nwhile True: pass")
    with process(sys.executable, "-c", LOADING, str(tmp_path)) as supervisor:
        pid = int(told.read_text())

        supervisor.kill()

        wait_for_the_end_of([pid])


WEAR = """
import os, sys
from supervisor.linux.process_tag import set_tag
set_tag(int(sys.argv[1]))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def marked(mark: int, *command: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A process that wears `mark`."""
    return process(sys.executable, "-c", WEAR, str(mark), *command)


def test_a_mark_is_handed_down_through_everything() -> None:
    mark = new_tag()
    hidden = f"{sys.executable} -c 'import os, time; print(os.getpid(), flush=True); time.sleep(3600)'"

    with marked(mark, "sh", "-c", f"setsid env -i {hidden} & wait") as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())

        assert set(tagged_pids(mark)) == {started.pid, pid}
        guard.kill_tagged(mark)

    assert list(tagged_pids(mark)) == []
    wait_for_the_end_of([pid])


def test_only_who_wears_the_mark_is_swept() -> None:
    mark, other = new_tag(), new_tag()
    talk = "echo; exec sleep 3600"
    with marked(mark, "sh", "-c", talk) as ours, marked(other, "sh", "-c", talk) as theirs:
        for one in (ours, theirs):
            assert one.stdout is not None
            one.stdout.readline()

        guard.kill_tagged(mark)

        assert ours.wait(GENEROUS) == -9
        assert has_tag(theirs.pid, other)


def test_no_two_marks_are_alike_and_none_is_a_limit() -> None:
    marks = {new_tag() for _ in range(100)}

    assert len(marks) == 100
    assert min(marks) / 1e6 / 86400 / 365 > 10_000  # years
    assert max(marks) < resource.RLIM_INFINITY % 2**64


def test_a_sweep_spares_the_one_that_sweeps() -> None:
    mark = new_tag()
    imports = "from supervisor.child.orphan_sweep import kill_tagged; from supervisor.linux.process_tag import set_tag"
    program = f"{imports}; set_tag({mark}); kill_tagged({mark}); print('alive')"

    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, cwd=HANDLERS.parents[1], timeout=GENEROUS
    )

    assert done.stdout == b"alive\n"
