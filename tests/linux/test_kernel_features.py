"""A missing kernel feature is reported in one sentence, with an exit code after which systemd does not restart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.linux import kernel_features, seccomp

pytestmark = pytest.mark.skipif(not seccomp.is_available(), reason="no seccomp filter can be installed here")

# Refuses one system call, as a sandbox does, and becomes the program.
WITHOUT = """
import ctypes, os, struct, sys
from supervisor.linux import syscalls as kernel
from supervisor.linux import seccomp
number, error = int(sys.argv[1]), int(sys.argv[2])
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | error), (0x06, 0, 0, 0x7FFF0000)]
program = seccomp._Program(len(steps), seccomp._assembled(steps))
kernel.forbid_new_privileges()
kernel.prctl(kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER, ctypes.addressof(program))
os.execv(sys.executable, [sys.executable, "-m", "supervisor", *sys.argv[3:]])
"""
PIDFD_OPEN = 434
PIDFD_SEND_SIGNAL = 424
MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}[os.uname().machine]
ENOSYS, EPERM = 38, 1


def ended(number: int, error: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"MOBIUS_API_KEY": "mbx_x", "MOBIUS_BASE_URL": "http://127.0.0.1:9", "PROJECT": "acme"}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, str(number), str(error), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("number", "error", "name"),
    [
        (PIDFD_OPEN, ENOSYS, "pidfd_open (Linux 5.3) is not available (Function not implemented)"),
        (PIDFD_OPEN, EPERM, "pidfd_open (Linux 5.3) is not available (Operation not permitted)"),
        (PIDFD_SEND_SIGNAL, EPERM, "pidfd_open (Linux 5.3) is not available (Operation not permitted)"),
        (MEMFD_CREATE, ENOSYS, "memfd_create with seals (Linux 3.17) is not available (Function not implemented)"),
    ],
)
def test_a_missing_feature_is_named(tmp_path: Path, number: int, error: int, name: str) -> None:
    run = ended(number, error, "run", "--handlers", str(tmp_path), "--state-dir", str(tmp_path / "state"))

    assert run.returncode == 2
    assert run.stderr.startswith(f"Error: {name}: the supervisor ")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["check", "dev"])
def test_other_commands_that_start_children_name_a_missing_feature_too(tmp_path: Path, command: str) -> None:
    run = ended(PIDFD_OPEN, ENOSYS, command, "--handlers", str(tmp_path))

    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "pidfd_open" in run.stderr


def test_this_host_has_all_features() -> None:
    assert kernel_features.missing() is None
