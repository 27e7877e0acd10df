"""The filter of system calls: what a child and its programs may change of themselves, and of other processes."""

from __future__ import annotations

import base64
import ctypes
import dataclasses
import errno
import mmap
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from supervisor.job import Succeeded
from supervisor.linux import seccomp
from supervisor.linux.confinement import Confinement
from supervisor.process.child import Child
from supervisor.process.reaper import Reaper
from supervisor.process.zygote import Zygote
from tests.process_world import module, nursery, run

pytestmark = pytest.mark.skipif(not seccomp.is_available(), reason="no seccomp filter can be installed here")

CALLS = """
import ctypes, os, resource, sys

libc = ctypes.CDLL(None, use_errno=True)
NICENESS = os.getpriority(os.PRIO_PROCESS, 0)  # only root may go below it

def ioprio_set(which, who):
    number = {"x86_64": 251, "aarch64": 30}[os.uname().machine]
    if libc.syscall(ctypes.c_long(number), which, who, ctypes.c_long(2 << 13 | 4)) != 0:
        raise OSError(ctypes.get_errno(), "ioprio_set")

def sched_setattr(pid):
    number = {"x86_64": 314, "aarch64": 274}[os.uname().machine]
    attributes = (ctypes.c_uint32 * 12)(48)
    attributes[4] = NICENESS & 0xFFFFFFFF
    if libc.syscall(ctypes.c_long(number), pid, attributes, 0) != 0:
        raise OSError(ctypes.get_errno(), "sched_setattr")

def tries(pid):
    limits = resource.getrlimit(resource.RLIMIT_CPU)
    normal = os.sched_param(0)
    return {
        "prlimit": lambda: resource.prlimit(pid, resource.RLIMIT_CPU, limits),
        "setpriority": lambda: os.setpriority(os.PRIO_PROCESS, pid, NICENESS),
        "setpriority of a group": lambda: os.setpriority(os.PRIO_PGRP, pid, NICENESS),
        "ioprio_set": lambda: ioprio_set(1, pid),
        "ioprio_set of a group": lambda: ioprio_set(2, pid),
        "sched_setscheduler": lambda: os.sched_setscheduler(pid, os.SCHED_OTHER, normal),
        "sched_setparam": lambda: os.sched_setparam(pid, normal),
        "sched_setattr": lambda: sched_setattr(pid),
        "sched_setaffinity": lambda: os.sched_setaffinity(pid, os.sched_getaffinity(0)),
    }

def refused(pid):
    names = []
    for name, call in tries(pid).items():
        try:
            call()
        except PermissionError:
            names.append(name)
    return names
"""
EVERYTHING = [
    "prlimit",
    "setpriority",
    "setpriority of a group",
    "ioprio_set",
    "ioprio_set of a group",
    "sched_setscheduler",
    "sched_setparam",
    "sched_setattr",
    "sched_setaffinity",
]


@pytest.fixture
def other() -> Iterator[int]:
    """Another process of this user, the leader of a group."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def filtered(act: Callable[[], object]) -> str:
    """Return what `act` returns, as text, in a child with the filter; or the name of its exception."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            restrictions = Confinement(filters_calls=True).enter()
            restrictions.enforce()
            told = str(act())
        except BaseException as error:
            told = type(error).__name__
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading) as pipe:
        return pipe.read()


def refused(pid: int) -> object:
    names: dict[str, Callable[[int], object]] = {}
    exec(CALLS, names)
    return names["refused"](pid)


def test_nothing_of_another_process_can_be_changed(other: int) -> None:
    assert filtered(lambda: refused(other)) == str(EVERYTHING)
    assert refused(other) == []  # without the filter all of it works


def test_the_high_half_of_a_pid_is_no_way_around(other: int) -> None:
    def with_a_high_half() -> object:
        names: dict[str, Callable[[int], object]] = {}
        exec(CALLS, names)
        libc = names["libc"]
        number = seccomp._ARCHITECTURES[os.uname().machine][0].numbers[5]
        mask = (1).to_bytes(8, "little")
        return libc.syscall(ctypes.c_long(number), ctypes.c_long(1 << 32 | other), ctypes.c_long(8), mask)  # type: ignore[attr-defined]

    assert filtered(with_a_high_half) == "-1"


def test_all_processes_of_the_user_cannot_be_changed() -> None:
    def renice() -> None:
        os.setpriority(os.PRIO_USER, 0, 19)

    def set_io_priority() -> None:
        names: dict[str, Callable[[int, int], object]] = {}
        exec(CALLS, names)
        names["ioprio_set"](3, os.getuid())

    assert filtered(renice) == "PermissionError"
    assert filtered(set_io_priority) == "PermissionError"


def test_a_child_changes_itself_by_zero_and_by_its_own_pid() -> None:
    assert filtered(lambda: refused(0)) == "[]"
    assert filtered(lambda: refused(os.getpid())) == "[]"


def test_limits_of_another_process_can_be_read(other: int) -> None:
    assert filtered(lambda: len(resource.prlimit(other, resource.RLIMIT_CPU))) == "2"


def python(source: str) -> Callable[[], str]:
    """Run `source` with `CALLS` in a new interpreter, as a handler does; return what it prints."""
    program = [sys.executable, "-c", f"{CALLS}\n{dedent(source)}"]
    return lambda: subprocess.run(program, capture_output=True, text=True, check=True).stdout.strip()


def test_a_program_of_a_handler_changes_itself_by_zero_only() -> None:
    assert filtered(python("print(refused(0))")) == "[]"
    assert filtered(python("print(refused(os.getpid()))")) == str(EVERYTHING)


PROGRAMS = {
    "nice": ["nice", "-n", "5", "true"],
    "ionice": ["ionice", "-c", "3", "true"],
    "taskset": ["taskset", "-c", str(min(os.sched_getaffinity(0))), "true"],
    "prlimit": ["prlimit", "--core=0", "true"],
    "chrt": ["chrt", "--batch", "0", "true"],
    "bash": ["bash", "-c", "ulimit -c 0"],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_that_start_others_with_limits_work(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")

    assert filtered(lambda: subprocess.run(PROGRAMS[program], capture_output=True, check=False)).count("returncode=0")


SET_PRIORITY_OF_32_BITS = bytes.fromhex("53 89f8 89f3 87d1 cd80 5b c3")
"""int call(int number, int which, int who, int niceness), by int 0x80: with the numbers of i386, in any program."""


def set_priority_as_a_32_bit_program(pid: int) -> int:
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(SET_PRIORITY_OF_32_BITS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return int(
        ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int] * 4)(address)(
            97, os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0)
        )
    )


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the test is machine code for x86_64")
def test_a_32_bit_call_is_filtered_by_its_own_numbers(other: int) -> None:
    unfiltered = subprocess.run(
        [sys.executable, "-c", f"from tests.test_seccomp import *; print(set_priority_as_a_32_bit_program({other}))"],
        capture_output=True,
        text=True,
        check=False,
    )
    if unfiltered.stdout.strip() != "0":
        pytest.skip("this kernel runs no 32-bit programs")

    assert filtered(lambda: set_priority_as_a_32_bit_program(other)) == str(-errno.EPERM)
    assert filtered(lambda: set_priority_as_a_32_bit_program(0)) == "0"


async def test_a_job_cannot_limit_its_supervisor_nor_trace_the_zygote(tmp_path: Path) -> None:
    folder = module(
        tmp_path / "handlers",
        """
        import os, resource
        from supervisor import handler

        @handler("reach-out")
        def reach_out(pids: list[int]) -> list[str]:
            told = []
            for pid in pids:
                try:
                    resource.prlimit(pid, resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))
                except OSError as error:
                    told.append(type(error).__name__)
            return [*told, open("/proc/self/status").read().partition("Seccomp:")[2].split()[0]]
        """,
    )
    confined = dataclasses.replace(nursery(folder), confinement=Confinement(filters_calls=True))
    reaper = Reaper()
    zygote = await Zygote.start(confined, reaper)
    try:
        child = await Child.start(zygote, reaper)
        told = await run(child, "reach-out", pids=[os.getpid(), zygote.pid])
        owner = Path(f"/proc/{zygote.pid}/oom_score_adj").stat().st_uid
        await child.kill()
    finally:
        await zygote.kill()

    assert isinstance(told.outcome, Succeeded)
    assert isinstance(told.outcome.result, bytes)
    assert base64.b64decode(told.outcome.result) == b'["PermissionError","PermissionError","2"]'
    assert owner == 0  # what cannot be dumped belongs to root in /proc
