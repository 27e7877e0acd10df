"""What is quoted of the report of a crash: real reports, of an interpreter that printed each and died of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from supervisor.linux.exit_status import signal_name
from supervisor.process.fatal_error import FatalErrorParser, as_dumped


def printed_by(program: Path, source: str) -> tuple[list[str], str]:
    """Write and run it; return the lines that it printed, and what killed it."""
    program.write_text(dedent(source))
    ended = subprocess.run([sys.executable, "-X", "faulthandler", program], capture_output=True, text=True, check=False)
    return ended.stderr.splitlines(), signal_name(-ended.returncode)


def sentence_of(lines: list[str]) -> str:
    report = FatalErrorParser()
    for line in lines:
        report.feed(line)
    return report.sentence


def test_the_error_and_the_first_frames_are_quoted(tmp_path: Path) -> None:
    source = """
    import os
    def one(): os.kill(os.getpid(), 11)
    def two(): one()
    def three(): two()
    three()
    """

    lines, end = printed_by(tmp_path / "bad.py", source)

    assert end == "SIGSEGV"
    file = f'File "{tmp_path / "bad.py"}"'
    assert sentence_of(lines) == (
        f"Fatal Python error: Segmentation fault; {file}, line 3 in one; {file}, line 4 in two; {file}, line 5 in three"
    )


def test_the_first_frames_are_not_lost_in_a_long_report(tmp_path: Path) -> None:
    source = """
    import os
    def fall(depth): os.abort() if depth == 0 else fall(depth - 1)
    fall(500)
    """

    lines, end = printed_by(tmp_path / "bad.py", source)

    assert end == "SIGABRT"
    assert len(lines) > 100
    assert sentence_of(lines).startswith(f'Fatal Python error: Aborted; File "{tmp_path / "bad.py"}", line 3 in fall; ')


def test_the_frames_are_those_of_the_thread_that_crashed(tmp_path: Path) -> None:
    source = """
    import os, threading
    def wait(): threading.Event().wait()
    for _ in range(3):
        threading.Thread(target=wait, daemon=True).start()
    os.abort()
    """

    lines, _ = printed_by(tmp_path / "bad.py", source)

    assert sum(line.startswith("Thread ") for line in lines) == 3
    assert sentence_of(lines) == f'Fatal Python error: Aborted; File "{tmp_path / "bad.py"}", line 6 in <module>'


def test_the_machinery_below_a_module_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import os\nos.abort()\n")

    lines, _ = printed_by(tmp_path / "imports.py", "import importlib\nimportlib.import_module('bad')\n")

    bad, imports = f'File "{tmp_path / "bad.py"}"', f'File "{tmp_path / "imports.py"}"'
    assert (
        sentence_of(lines) == f"Fatal Python error: Aborted; {bad}, line 2 in <module>; {imports}, line 2 in <module>"
    )


def test_a_report_behind_half_a_line_is_recognized(tmp_path: Path) -> None:
    source = """
    import os, sys
    print("loading ", end="", file=sys.stderr, flush=True)
    os.abort()
    """

    lines, _ = printed_by(tmp_path / "bad.py", source)

    assert lines[0] == "loading Fatal Python error: Aborted"
    assert sentence_of(lines) == f'Fatal Python error: Aborted; File "{tmp_path / "bad.py"}", line 4 in <module>'


def test_only_the_newest_report_counts(tmp_path: Path) -> None:
    """A program that a module starts may crash before, and print its report to the same place."""
    other, _ = printed_by(tmp_path / "other.py", "import os\nos.abort()")
    own, _ = printed_by(tmp_path / "own.py", "import os\nos.abort()")

    assert sentence_of([*other, "restarted", *own]) == sentence_of(own)


@pytest.mark.parametrize(
    "lines", [[], ["loading"], ["Current thread 0x1 (most recent call first):", '  File "a", line 1']]
)
def test_without_a_report_there_is_nothing_to_quote(lines: list[str]) -> None:
    assert sentence_of(lines) == ""


def test_a_path_is_escaped_as_faulthandler_does(tmp_path: Path) -> None:
    module = tmp_path / "ü ☃ 😀" / "dumping.py"
    module.parent.mkdir()
    module.write_text("import faulthandler\nfaulthandler.dump_traceback()\n")

    dumped = subprocess.run([sys.executable, module], stderr=subprocess.PIPE, text=True, check=True).stderr

    assert f'File "{as_dumped(module)}", line 2 in <module>' in dumped
