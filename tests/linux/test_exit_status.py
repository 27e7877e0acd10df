"""Exit status and resource usage of a process."""

import os
import signal
import sys

import pytest

from supervisor.linux.exit_status import ExitStatus, signal_name


def end_of(*command: str) -> ExitStatus:
    """Run a program and return its exit status."""
    _, status, usage = os.wait4(os.posix_spawnp(command[0], command, os.environ), 0)
    return ExitStatus.of(status, usage)


@pytest.mark.parametrize("code", [0, 1, 70, 255])
def test_the_exit_code_of_a_process_is_reported(code: int) -> None:
    how = end_of("sh", "-c", f"exit {code}")

    assert (how.code, how.signal, str(how)) == (code, 0, f"exited with code {code}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_the_signal_that_killed_a_process_is_named(number: signal.Signals) -> None:
    how = end_of("sh", "-c", f"kill -{number.value} $$")

    assert (how.code, how.signal, str(how)) == (0, number, f"was killed by {number.name}")


def test_a_signal_without_a_name_is_reported_by_its_number() -> None:
    assert signal_name(signal.SIGRTMIN + 6) == f"signal {signal.SIGRTMIN + 6}"


def test_a_core_dump_does_not_change_the_signal() -> None:
    _, _, usage = os.wait4(os.posix_spawnp("true", ["true"], os.environ), 0)

    how = ExitStatus.of(signal.SIGSEGV | 0x80, usage)

    assert str(how) == "was killed by SIGSEGV"


def test_memory_is_reported_in_bytes_and_cpu_time_in_seconds() -> None:
    program = "import os\nspent = b'x' * (64 * 2**20)\nwhile sum(os.times()[:2]) < 0.1: pass"

    how = end_of(sys.executable, "-c", program)

    assert 64 * 2**20 < how.peak_memory < 2**32
    assert 0.09 < how.cpu < 2.0
