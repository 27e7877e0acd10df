"""Shared memory of a job that is killed goes with it; that of others stays, be it held by a mere descriptor."""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from supervisor.process import shared_memory
from supervisor.process.exit_watch import ChildDied
from supervisor.process.shared_memory import Mapped, Segment, mapped_by, remove, segments_in
from tests.harness import GENEROUS
from tests.process_world import Heard, module, run, world

SHM = Path("/dev/shm")
pytestmark = pytest.mark.skipif(not os.access(SHM, os.W_OK), reason="/dev/shm cannot be written here")


@pytest.fixture
def name() -> Iterator[str]:
    name = f"mobius-test-{os.getpid()}"
    yield name
    for file in SHM.glob(f"{name}*"):
        file.unlink()


def segment(file: Path, size: int = 4096) -> int:
    """A descriptor of a new segment."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(descriptor, size)
    return descriptor


def identity(file: Path) -> Segment:
    status = file.stat()
    return Segment(str(file), status.st_dev, status.st_ino)


def test_the_segments_of_a_process_are_found(name: str) -> None:
    descriptor = segment(SHM / f"{name} with a blank")
    with mmap.mmap(descriptor, 4096):
        os.close(descriptor)
        assert identity(SHM / f"{name} with a blank") in mapped_by(os.getpid()).segments


def test_what_is_removed_already_is_no_segment() -> None:
    lines = (
        "7f00-7f01 rw-s 00000000 00:1a 17 /dev/shm/psm_1 (deleted)\n"
        "7f00-7f01 rw-s 00000000 00:1a 18   /dev/shm/psm_2\n"
        "7f00-7f01 rw-s 00000000 00:01 32769 /SYSV00000000 (deleted)\n"
        "7f00-7f01 r--p 00000000 fe:00 19 /usr/lib/dev/shm\n"
        "7f00-7f01 rw-s 00000000 00:1a"
    )

    assert list(segments_in(lines)) == [Segment("/dev/shm/psm_2", os.makedev(0, 0x1A), 18), 32769]


@pytest.mark.parametrize("held", ["by a descriptor", "by a mapping", "by nobody"])
def test_what_a_process_still_holds_stays(name: str, held: str) -> None:
    file = SHM / name
    descriptor = segment(file)
    mapped = Mapped(frozenset({identity(file)}))
    mapping = mmap.mmap(descriptor, 4096)
    if held != "by a descriptor":
        os.close(descriptor)
    if held != "by a mapping":
        mapping.close()

    removed = remove(mapped, time.time() - 60)

    assert (removed, file.exists()) == ((4096, False) if held == "by nobody" else (0, True))
    if held == "by a descriptor":
        os.close(descriptor)


def test_what_was_there_before_the_job_and_what_has_taken_its_name_stays(name: str) -> None:
    file = SHM / name
    os.close(segment(file))
    seen = identity(file)

    assert remove(Mapped(frozenset({seen})), time.time() + 60) == 0
    assert remove(Mapped(frozenset({Segment(seen.path, seen.device, seen.inode + 1)})), 0.0) == 0
    (SHM / f"{name}-link").symlink_to(file)
    assert remove(Mapped(frozenset({Segment(f"{file}-link", seen.device, seen.inode)})), 0.0) == 0
    assert file.exists()


@pytest.mark.root("only root can give a file away")
def test_what_belongs_to_another_user_stays(name: str) -> None:
    os.close(segment(SHM / name))
    os.chown(SHM / name, 65534, 65534)

    assert remove(Mapped(frozenset({identity(SHM / name)})), 0.0) == 0


HOLDS = """
import ctypes, multiprocessing, time
from multiprocessing.shared_memory import SharedMemory
from supervisor import Context, handler

def hold(name):
    held = SharedMemory(name, create=True, size=8192)
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    shmid = libc.shmget(0, 4096, 0o1600)
    assert libc.shmat(shmid, None, 0) not in (None, ctypes.c_void_p(-1).value)
    return held, shmid

@handler("hold")
def hold_and_wait(context: Context, name: str) -> None:
    held, shmid = hold(f"{name}-1")
    other = multiprocessing.get_context("fork").Process(target=lambda: (hold(f"{name}-2"), time.sleep(60)))
    other.start()
    while not __import__("os").path.exists(f"/dev/shm/{name}-2"):
        time.sleep(0.01)
    time.sleep(0.1)
    context.emit("holding", {"pids": [other.pid], "shmid": shmid})
    time.sleep(60)
"""


def system_v_ids() -> set[int]:
    return {int(line.split()[1]) for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


async def test_a_killed_job_leaves_no_shared_memory(tmp_path: Path, name: str) -> None:
    async with world(module(tmp_path / "handlers", HOLDS)) as here:
        child = await here.child()
        heard = Heard()
        job = asyncio.ensure_future(run(child, "hold", heard, name=name))
        await heard.pids()
        there = [file.name for file in sorted(SHM.glob(f"{name}*"))]
        shmid = msgspec.json.decode(heard.events[0].payload)["shmid"]
        assert shmid in system_v_ids()

        await child.kill()
        with pytest.raises(ChildDied, match="was killed by SIGKILL"):
            await job

    assert there == [f"{name}-1", f"{name}-2"]
    assert not list(SHM.glob(f"{name}*"))
    assert shmid not in system_v_ids()


NAPS = """
import os, time
from supervisor import Context, handler

@handler("nap")
def nap(context: Context) -> None:
    context.emit("napping", {"pids": [os.getpid()]})
    time.sleep(60)
"""


async def test_a_job_is_killed_though_its_mappings_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    monkeypatch.setattr(shared_memory, "mapped_by", lambda _: may_end.wait(GENEROUS))
    async with world(module(tmp_path / "handlers", NAPS)) as here:
        child = await here.child()
        heard = Heard()
        job = asyncio.ensure_future(run(child, "nap", heard))
        await heard.pids()

        child.kill_now()
        child.kill_now()
        with pytest.raises(ChildDied, match="was killed by SIGKILL"):
            await job

        may_end.set()
