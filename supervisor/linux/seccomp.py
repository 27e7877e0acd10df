"""A filter of system calls (seccomp(2)): a process may change its own limits and scheduling, not those of others.

For these calls the kernel only checks that the user is the same, and Landlock does not cover them: one `prlimit(2)` can
end any process of this user.  A filter compares numbers: it allows pid 0 and the pid of the child that installs it.
A program started by the job must therefore pass 0 for itself; its own pid is rejected like every other.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.linux import syscalls as kernel

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1
# Without this flag, Linux before 5.16 enables mitigations that slow the process down and that are not needed here.
_SPEC_ALLOW = 1 << 2

# Classic BPF (linux/bpf_common.h, linux/seccomp.h).
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_REFUSE = _ERRNO | errno.EPERM
_UNKNOWN = _ERRNO | errno.ENOSYS
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in `struct seccomp_data`
_X32 = 0x40000000
_Instruction = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that changes the process whose pid is argument number `pid`.

    `every` is the value of argument 0 that selects all processes of a user.  `reads` is the number of a pointer
    argument that is NULL if the call only reads.
    """

    pid: int = 0
    every: int | None = None
    reads: int | None = None


CALLS: Mapping[str, Call] = {
    "prlimit64": Call(reads=2),
    "setpriority": Call(pid=1, every=2),
    "ioprio_set": Call(pid=1, every=3),
    "sched_setparam": Call(),
    "sched_setscheduler": Call(),
    "sched_setaffinity": Call(),
    "sched_setattr": Call(),
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers of `CALLS`, in that order, on one architecture (linux/audit.h, AUDIT_ARCH_*)."""

    audit: int
    numbers: tuple[int, int, int, int, int, int, int]
    has_x32: bool = False


# A 64-bit kernel also runs 32-bit programs, which use other numbers.
_ARCHITECTURES = {
    "x86_64": (
        Architecture(0xC000003E, (302, 141, 251, 142, 144, 203, 314), has_x32=True),
        Architecture(0x40000003, (340, 97, 289, 154, 156, 241, 351)),  # i386
    ),
    "aarch64": (
        Architecture(0xC00000B7, (261, 140, 30, 118, 119, 122, 274)),
        Architecture(0x40000028, (369, 97, 314, 154, 156, 241, 380)),  # arm
    ),
}


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def is_available() -> bool:
    """True if the kernel, the architecture and the sandbox allow filters."""
    if platform.machine() not in _ARCHITECTURES or sys.byteorder != "little":
        return False
    try:
        kernel.prctl(kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER)
    except OSError as error:
        # A kernel with filters first reads the program, whose address is NULL here (seccomp(2)).
        return error.errno == errno.EFAULT
    return False


class Filter:
    """The filter, made once in the zygote; each child installs it for its own pid."""

    def __init__(self) -> None:
        architectures = _ARCHITECTURES[platform.machine()]
        self._seccomp = _SECCOMP[platform.machine()]
        # Two programs for two pids differ where the pid stands.
        zeros, ones = (_assembled(_program(architectures, pid)) for pid in (0, 0xFFFFFFFF))
        self._template = zeros
        self._places = [at for at in range(4, len(zeros), 8) if zeros[at : at + 4] != ones[at : at + 4]]

    def install(self) -> None:
        """Restrict this process, which has one thread, and its descendants.  Call `forbid_new_privileges` before."""
        instructions = bytearray(self._template)
        pid = struct.pack("=I", os.getpid())
        for place in self._places:
            instructions[place : place + 4] = pid
        program = _Program(len(instructions) // 8, bytes(instructions))
        try:
            kernel.system_call(self._seccomp, _SET_MODE_FILTER, _SPEC_ALLOW, ctypes.byref(program))
        except OSError:  # Linux before 4.17, or a seccomp filter of a unit that blocks seccomp(2)
            kernel.prctl(kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _assembled(program: list[_Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _program(architectures: tuple[Architecture, ...], pid: int) -> list[_Instruction]:
    program = [(_LOAD, 0, 0, _ARCHITECTURE)]
    for architecture in architectures:
        calls = _for_architecture(architecture, pid)
        program += [(_JUMP_IF_EQUAL, 0, len(calls), architecture.audit), *calls]
    return [*program, (_RETURN, 0, 0, _UNKNOWN)]


def _for_architecture(architecture: Architecture, pid: int) -> list[_Instruction]:
    program = [(_LOAD, 0, 0, _NUMBER)]
    if architecture.has_x32:
        program += [(_JUMP_IF_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _UNKNOWN)]
    for number, call in zip(architecture.numbers, CALLS.values(), strict=True):
        verdict = _for_call(call, pid)
        program += [(_JUMP_IF_EQUAL, 0, len(verdict), number), *verdict]
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _for_call(call: Call, pid: int) -> list[_Instruction]:
    """Return the instructions for a call.  They compare the low 32 bits of a pid: the kernel ignores the others."""
    verdict: list[_Instruction] = []
    if call.reads is not None:
        low, high = _argument(call.reads), _argument(call.reads) + 4
        verdict += [(_LOAD, 0, 0, low), (_JUMP_IF_EQUAL, 0, 3, 0)]
        verdict += [(_LOAD, 0, 0, high), (_JUMP_IF_EQUAL, 0, 1, 0), (_RETURN, 0, 0, _ALLOW)]
    if call.every is not None:
        verdict += [(_LOAD, 0, 0, _argument(0)), (_JUMP_IF_EQUAL, 0, 1, call.every), (_RETURN, 0, 0, _REFUSE)]
    verdict += [(_LOAD, 0, 0, _argument(call.pid)), (_JUMP_IF_EQUAL, 1, 0, 0), (_JUMP_IF_EQUAL, 0, 1, pid)]
    return [*verdict, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]


def _argument(number: int) -> int:
    """Return the offset of the low half of an argument, on a little-endian machine."""
    return _ARGUMENTS + 8 * number
