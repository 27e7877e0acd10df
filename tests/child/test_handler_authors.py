"""Mistakes of authors of handlers: one sentence with file and line each, and all other modules are served.

To save time, many modules share one folder and one start of the zygote.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from supervisor.ipc.messages import Imported, Problem
from supervisor.process.zygote import ImportEnded, import_once
from supervisor.text.duration import parse_duration
from supervisor.text.size import parse_size
from tests.harness import GENEROUS

HEAD = "from supervisor import Context, handler\n"

REFUSED: dict[str, tuple[str, int, str]] = {
    # what an exception may be
    "surrogate_text": ("raise ValueError('\\udc80 \\ud800')", 2, "ValueError: \\udc80 \\ud800"),
    "long_text": ("raise ValueError('x' * 5_000_000)", 2, "ValueError: xxx"),
    "blank_text": ("raise ValueError('\\n\\nsecond')", 2, "ValueError: second"),
    "text_that_exits": ("class E(Exception):\n def __str__(self): raise SystemExit\nraise E", 4, "its text cannot be"),
    "text_that_is_none": ("class E(Exception):\n def __str__(self): return 3\nraise E", 4, "its text cannot be shown"),
    "odd_exit": ("class A:\n def __repr__(self): 1/0\nraise SystemExit(A())", 4, "it called sys.exit(<odd_exit.A>)"),
    "odd_syntax": ("raise SyntaxError('odd', (3, 'x', 'y', []))", 2, "SyntaxError: odd"),
    "odd_syntax_line": (
        "e = SyntaxError('odd'); e.filename = __file__; e.lineno = 'x'; raise e",
        1,
        "SyntaxError: odd",
    ),
    "odd_type": ("class E(Exception): ...\nE.__qualname__ = 'a\\nb'; E.__module__ = None\nraise E('x')", 4, "x"),
    "endless_chain": (
        "e = None\nfor i in range(3000):\n n = ValueError(i); n.__cause__ = e; e = n\nraise e",
        5,
        "2999",
    ),
    "own_cause": ("e = ValueError('a'); e.__cause__ = e\nraise e", 3, "ValueError: a"),
    "interrupt": ("raise KeyboardInterrupt", 2, "KeyboardInterrupt"),
    "odd_code_name": ("exec(compile('1/0', '\\udc80', 'exec'))", 2, "ZeroDivisionError"),
    "missing_key": ("{}['missing_key']", 2, "KeyError: 'missing_key'"),
    "removed": ("import sys; del sys.modules[__name__]", 1, "it removed itself from sys.modules"),
    # where the decorator stands
    "method": (
        "class A:\n    @handler('x')\n    def f(self, text: str): ...",
        3,
        "its first parameter 'self' is that of",
    ),
    "class_method": (
        "class A:\n    @classmethod\n    @handler('x')\n    def f(cls): ...",
        4,
        "its first parameter 'cls'",
    ),
    "over_class_method": ("class A:\n    @handler('x')\n    @classmethod\n    def f(cls): ...", 3, "above a function"),
    "late_context": ("@handler('x')\ndef f(n: int, context): ...", 2, "the context must be first: move 'context'"),
    "rest_as_context": ("@handler('x')\ndef f(**context): ...", 2, "'**context' receives parameters of the job"),
    "same_in_a_loop": ("for n in range(2):\n @handler('x')\n def f(): ...", 3, "action 'x' is claimed twice"),
    # what is written in it
    "long_name": ("@handler('x' * 201)\ndef f(): ...", 2, "has at most 200 characters, not 201"),
    "nice_flag": ("@handler('x', nice=True)\ndef f(): ...", 2, "nice is a whole number from 0 to 19, not True"),
    "threads": ("@handler('x', threads=2**31)\ndef f(): ...", 2, "threads is a whole number from 1 on"),
    "digits": ("@handler('x', max_concurrent=10**5000)\ndef f(): ...", 2, "not <int>"),
    "memory": ("@handler('x', memory='9' * 400)\ndef f(): ...", 2, "9… is not a size"),
    "more_memory": ("@handler('x', memory=10**5000)\ndef f(): ...", 2, "<int> is not a size"),
    "timeout": ("@handler('x', timeout=1e300)\ndef f(): ...", 2, "timeout is at most 3650d, not 1e+300"),
    "odd_timeout": (
        "class A:\n def __repr__(self): 1/0\n@handler('x', timeout=A())\ndef f(): ...",
        4,
        "<odd_timeout.A>",
    ),
    "long_timeout": ("@handler('x', timeout=['y'] * 1_000_000)\ndef f(): ...", 2, "… is not a duration"),
    "odd_isolation": (
        "class A:\n def __eq__(self, o): 1/0\n@handler('x', isolation=A())\ndef f(): ...",
        4,
        "isolation",
    ),
}

SERVED: dict[str, tuple[str, set[str]]] = {
    "name_of_a_subclass": ("class S(str): ...\n@handler(S('subclass'))\ndef f(): ...", {"subclass"}),
    "name_of_an_enum": ("import enum\nclass S(str, enum.Enum):\n A = 'enum'\n@handler(S.A)\ndef f(): ...", {"enum"}),
    "limits_of_subclasses": (
        (
            "import enum\nclass S(str): ...\nclass E(enum.IntEnum):\n A = 3\n"
            "@handler('plain', timeout=S('3s'), isolation=S('fresh'), nice=E.A, max_concurrent=E.A)\ndef f(): ..."
        ),
        {"plain"},
    ),
    "docs": ("@handler('docs')\ndef f(): ...\nf.__doc__ = '\\udc80' * 5_000_000", {"docs"}),
    "docs_of_a_number": ("def f(): ...\nf.__doc__ = 3\nhandler('docs-3')(f)", {"docs-3"}),
    "odd_source_name": ("exec(compile(\"@handler('source')\\ndef f(): ...\", '\\udc80', 'exec'))", {"source"}),
    "no_name": ("__name__ = None\n@handler('no-name')\ndef f(): ...", {"no-name"}),
    "other_name": ("__name__ = 'elsewhere'\n@handler('other-name')\ndef f(): ...", {"other-name"}),
    "static": ("class A:\n    @staticmethod\n    @handler('static')\n    def f(x: int): ...", {"static"}),
    "same_function": ("@handler('same')\n@handler('same')\ndef f(): ...", {"same"}),
    "odd_thread": (
        (
            "import threading\nclass T(threading.Thread):\n name = property(lambda self: 1/0, lambda *_: None)\n"
            "T(target=threading.Event().wait, daemon=True).start()\n@handler('thread')\ndef f(): ..."
        ),
        {"thread"},
    ),
}


def write(folder: Path, name: str, source: str) -> None:
    (folder / f"{name}.py").write_text(HEAD + dedent(source) + "\n")


def imported(*folders: Path, import_timeout: float = GENEROUS) -> Imported:
    return import_once(folders, import_timeout, [])


def actions(found: Imported) -> set[str]:
    return {handler.action for handler in found.handlers}


def by_file(found: Imported, folder: Path) -> dict[str, Problem]:
    return {os.path.relpath(problem.file, folder): problem for problem in found.problems}


def test_each_broken_module_is_reported_with_its_line_and_the_others_are_served(tmp_path: Path) -> None:
    for name, (source, _, _) in REFUSED.items():
        write(tmp_path, name, source)
    for name, (source, _) in SERVED.items():
        write(tmp_path, name, source)

    found = imported(tmp_path)

    problems = {problem.module: problem for problem in found.problems}
    assert problems.keys() == REFUSED.keys()
    for name, (_, line, part) in REFUSED.items():
        problem = problems[name]
        assert part in problem.message, name
        assert problem.file == str(tmp_path / f"{name}.py")
        # Python versions differ in where a decorator is called.
        assert problem.line in {line, line + 1}, (name, problem.line)
        assert "\n" not in problem.message
        assert len(problem.message) <= 1000
    assert actions(found) == {action for _, served in SERVED.values() for action in served}
    assert all(len(handler.summary) <= 1400 for handler in found.handlers)


def test_each_unusable_file_is_reported_and_the_others_are_served(tmp_path: Path) -> None:
    serving = f"{HEAD}@handler('odd')\ndef f(): ...\n"
    write(tmp_path, "good", "@handler('good')\ndef f(): ...")
    for name in (b"caf\xe9.py", b"new\nline.py", b"with blank.py", b"UPPER.PY", b"json.py", b"_json.py", b"this.py"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text(serving)
    for name in (".#lock.py", "_gone.py", "data.csv", "gone.py", "gone", "_gone"):
        (tmp_path / name).symlink_to("/nowhere/there")
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "null.py").symlink_to(os.devnull)
    os.mkfifo(tmp_path / "fifo.py")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "socket.py"))
    (tmp_path / "nul.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "codec.py").write_bytes(b"# coding: klingon\n")

    found = imported(tmp_path)

    assert actions(found) == {"good"}
    assert {problem.file: problem.message for problem in found.problems} == {
        f"{tmp_path}/{name}": message
        for name, message in {
            "caf\\xe9.py": "'caf\\xe9' is not a module name: use letters, digits and '_'",
            "new\nline.py": "'new\nline' is not a module name: use letters, digits and '_'",
            "with blank.py": "'with blank' is not a module name: use letters, digits and '_'",
            "UPPER.PY": "it is not served: its name must end in '.py', in lower case",
            "json.py": "the name 'json' belongs to Python's standard library: rename the file",
            "_json.py": "the name '_json' belongs to Python's standard library: rename the file",
            "this.py": "the name 'this' belongs to Python's standard library: rename the file",
            "gone.py": "it is not served: it is a link to /nowhere/there: No such file or directory",
            "gone": "it is not served: it is a link to /nowhere/there: No such file or directory",
            "loop.py": "it is not served: it is a link to loop.py: Too many levels of symbolic links",
            "null.py": "it is not served: it is no regular file",
            "fifo.py": "it is not served: it is no regular file",
            "socket.py": "it is not served: it is no regular file",
            "nul.py": next(p.message for p in found.problems if p.file.endswith("nul.py")),  # versions differ
            "codec.py": "SyntaxError: unknown encoding: klingon",
        }.items()
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_package_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "good", "@handler('good')\ndef f(): ...")
    (tmp_path / "closed").mkdir(mode=0)

    found = imported(tmp_path)

    assert actions(found) == {"good"}
    assert [problem.message for problem in found.problems] == ["it cannot be read: Permission denied"]


def test_a_folder_whose_name_is_not_utf_8_is_served(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    write(folder, "good", "@handler('good')\ndef f(): ...")
    write(folder, "bad", "1 / 0")
    write(folder, "deadly", "import os; os._exit(3)")

    found = imported(folder)

    assert actions(found) == {"good"}
    assert by_file(found, tmp_path).keys() == {"caf\\xe9/bad.py", "caf\\xe9/deadly.py"}


def test_a_module_does_not_import_the_helper_of_another_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    serving = "@handler({!r})\ndef f(): ..."
    for folder in (first, second):
        folder.mkdir()
        write(folder, "_rates", f"RATE = {folder.name!r}")
        write(folder, "_same", "SAME = 1")
    write(second, "_between", "def rate():\n    import _rates\n    return _rates.RATE")
    write(first, "red", f"import _rates, _same\n{serving.format('red')}")
    write(second, "blue", f"import _rates\n{serving.format('blue')}")
    write(second, "green", f"import _between\n{serving.format('green')}")
    write(second, "grey", f"import _same\n{serving.format('grey')}")

    found = imported(first, second)

    why = f"it would import {first}/_rates.py instead of {second}/_rates.py: rename one of them"
    assert actions(found) == {"red", "grey"}
    assert [(problem.module, problem.file, problem.line, problem.message) for problem in found.problems] == [
        (
            "_rates",
            f"{second}/_rates.py",
            1,
            f"helper '_rates' is there twice: {first}/_rates.py is imported instead",
        ),
        ("blue", f"{second}/blue.py", 2, why),
        ("green", f"{second}/_between.py", 3, why),
    ]


def test_a_file_imported_under_two_names_is_served_once_with_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "__init__.py").touch()
    write(folder, "pages", "import sys; sys.path.append(__file__.rsplit('/', 2)[0])\nfrom tasks.words import f")
    write(folder, "words", "@handler('count')\ndef f(): ...")
    (folder / "zlink.py").symlink_to("words.py")

    found = imported(folder)

    twice = f"{folder}/words.py is imported twice, as 'words' and"
    assert [(handler.action, handler.module) for handler in found.handlers] == [("count", "words")]
    assert found.problems == ()
    assert found.warnings == (
        f"{twice} as 'tasks.words': import 'words' in {folder}/pages.py, line 3",
        f"{twice} as 'zlink': import 'words'",
    )


def test_interpreter_state_that_a_module_removes_is_restored_with_a_warning(tmp_path: Path) -> None:
    thefts = {
        "b_path": ("import sys; sys.path.clear()", "sys.path"),
        "c_finders": ("import sys; sys.meta_path = None", "sys.meta_path"),
        "d_hooks": ("import sys; sys.path_hooks.clear(); sys.path_importer_cache.clear()", "sys.path_hooks"),
        "e_modules": ("import sys; sys.modules.clear()", "sys.modules"),
        "f_builtins": ("import builtins; builtins.open = builtins.sorted = None", "builtins.sorted, builtins.open"),
        "g_depth": ("import sys; sys.setrecursionlimit(70)", "the recursion limit"),
        "h_alarm": ("import signal; signal.setitimer(signal.ITIMER_REAL, 3600)", "the alarm clock"),
    }
    for name, (source, _) in thefts.items():
        write(tmp_path, name, source)
    for name in ("a", "cc", "z"):
        write(tmp_path, name, f"import json\n@handler({name!r})\ndef f(): ...")

    found = imported(tmp_path)

    assert actions(found) == {"a", "cc", "z"}
    assert found.warnings == tuple(
        f"module {name!r} ({tmp_path}/{name}.py) changed {what} when it was imported; it was put back"
        for name, (_, what) in thefts.items()
    )


def test_a_module_that_ends_the_process_is_skipped_and_reported_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, "a_good", "@handler('a')\ndef f(): ...")
    write(tmp_path, "b_exit", "import os\nos.write(2, b'no licence')\nos._exit(7)")
    write(tmp_path, "c_crash", "import ctypes\ndef fall():\n    ctypes.string_at(0)\nfall()")
    write(tmp_path, "e_good", "@handler('e')\ndef f(): ...")

    found = imported(tmp_path)

    problems = by_file(found, tmp_path)
    assert actions(found) == {"a", "e"}
    assert {name: problem.line for name, problem in problems.items()} == {"b_exit.py": 1, "c_crash.py": 4}
    assert problems["b_exit.py"].message == "its import exited with code 7: no licence"
    assert problems["c_crash.py"].message.startswith("its import was killed by SIGSEGV: Fatal Python error: Segm")


def test_one_hanging_module_is_skipped_and_a_second_one_fails_the_start(tmp_path: Path) -> None:
    write(tmp_path, "a_loop", "while True: pass")
    write(tmp_path, "b_loop", "while True: pass")

    with pytest.raises(ImportEnded, match=r"took longer than 1\.5 s; it had come to module 'b_loop'") as caught:
        imported(tmp_path, import_timeout=1.5)

    assert caught.value.problem == Problem("b_loop", f"{tmp_path}/b_loop.py", 1, "its import took longer than 1.5 s")


def test_thousands_of_handlers_with_long_texts_are_sent_to_the_parent(tmp_path: Path) -> None:
    write(
        tmp_path,
        "many",
        """
        def make(number):
            def f(): ...
            f.__doc__ = chr(0x1F600) * 300
            handler(f"{number:0200}")(f)

        for number in range(3000):
            make(number)
        """,
    )

    found = imported(tmp_path)

    assert len(found.handlers) == 3000
    assert found.problems == ()


def test_check_reports_each_problem_and_exits_with_3(tmp_path: Path) -> None:
    write(tmp_path, "good", "@handler('good')\ndef f(): ...")
    write(tmp_path, "deadly", "import os; os._exit(3)")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.py")).touch()

    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "check", "--handlers", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 3
    assert done.stdout.splitlines()[1].split()[:2] == ["good", "good"]
    assert f"{tmp_path}/deadly.py:1: its import exited with code 3: no output" in done.stderr.splitlines()
    assert f"{tmp_path}/caf\\xe9\\n.py:1: 'caf\\xe9\\n' is not a module name: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["9" * 400, "9" * 30, 0, -1, True, "1.5.5"])
def test_an_impossible_size_is_rejected(text: str | int) -> None:
    with pytest.raises(ValueError, match="is not a size") as caught:
        parse_size(text)

    assert len(str(caught.value)) < 250


def test_the_rejection_of_a_long_text_shows_its_beginning() -> None:
    with pytest.raises(ValueError, match="is not a duration") as caught:
        parse_duration("x" * 1_000_000)

    assert len(str(caught.value)) < 250
