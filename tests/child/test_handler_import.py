"""Handler modules are found and imported: real folders, each in a new interpreter."""

import codecs
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

import msgspec
import pytest

from supervisor.ipc.messages import Imported

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
import msgspec
from supervisor.child.handler_import import import_handlers

{before}
announced = []
imported = import_handlers([Path(folder) for folder in sys.argv[1:]], announced.append)
{after}
sys.stdout.buffer.write(msgspec.json.encode(imported))
"""


def import_in_a_process(*folders, before="", after=""):
    """Call `import_handlers` in a new interpreter, which also executes `before` and `after`."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before, after=after), *map(str, folders)],
        check=False,
        capture_output=True,
        cwd=ROOT,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=Imported)


def write(folder, **modules):
    """Write modules; `__` in a name stands for the path separator."""
    for name, source in modules.items():
        file = folder / (name.replace("__", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(source))
    return folder


def serving(name, *, above="", below=""):
    return (
        f"{dedent(above)}\nfrom supervisor import handler\n@handler({name!r})\ndef function(): ...\n{dedent(below)}\n"
    )


def actions(imported):
    return [known.action for known in imported.handlers]


def test_files_and_packages_are_imported_by_their_plain_names(tmp_path):
    write(tmp_path, resize=serving("resize"))
    (tmp_path / "crop").mkdir()
    (tmp_path / "crop" / "__init__.py").write_text("from crop import work\n")
    (tmp_path / "crop" / "work.py").write_text(serving("crop"))

    imported = import_in_a_process(tmp_path)

    assert [(known.action, known.module) for known in imported.handlers] == [
        ("crop", "crop.work"),
        ("resize", "resize"),
    ]
    assert imported.problems == ()
    assert imported.warnings == ()


def test_a_module_with_a_byte_order_mark_is_served(tmp_path):
    (tmp_path / "resize.py").write_bytes(codecs.BOM_UTF8 + serving("resize").encode())

    imported = import_in_a_process(tmp_path)

    assert [known.action for known in imported.handlers] == ["resize"]
    assert imported.problems == ()


def test_a_handler_is_reported_with_its_location_limits_and_summary(tmp_path):
    source = '''
    from supervisor import handler

    @handler("resize", timeout="10m", cancel_grace="5s", idempotent=True)
    def resize(width: int):
        """Make a picture smaller."""
    '''
    write(tmp_path, pictures=source)

    [known] = import_in_a_process(tmp_path).handlers

    assert (known.action, known.module, known.file, known.line) == (
        "resize",
        "pictures",
        str(tmp_path / "pictures.py"),
        4,
    )
    limits = known.limits
    assert (limits.timeout, limits.cancel_grace, limits.idempotent) == (600.0, 5.0, True)
    assert known.summary == "Make a picture smaller."


def test_names_with_an_underscore_are_helpers_that_modules_can_import(tmp_path):
    write(
        tmp_path, _common="NAME = 'resize'", resize="import _common\n" + serving("resize", above="assert _common.NAME")
    )
    (tmp_path / "__init__.py").write_text("raise RuntimeError('not for us')")
    (tmp_path / "_broken.py").write_text("raise RuntimeError('not for us')")
    (tmp_path / "notes.txt").write_text("no module")
    (tmp_path / "data").mkdir()

    imported = import_in_a_process(tmp_path)

    assert actions(imported) == ["resize"]
    assert imported.problems == ()


def test_a_relative_folder_is_resolved_from_the_working_directory(tmp_path):
    write(tmp_path, resize=serving("resize"))

    [known] = import_in_a_process(os.path.relpath(tmp_path, ROOT)).handlers

    assert known.file == str(tmp_path / "resize.py")


def test_a_failing_module_does_not_prevent_the_others_from_being_served(tmp_path):
    write(tmp_path, a=serving("a"), b="import nowhere", c=serving("c"))

    imported = import_in_a_process(tmp_path)

    assert actions(imported) == ["a", "c"]
    [problem] = imported.problems
    assert (problem.module, problem.file, problem.line) == ("b", str(tmp_path / "b.py"), 1)
    assert problem.message == "ModuleNotFoundError: No module named 'nowhere'"


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("\n1 / 0", 2, "ZeroDivisionError: division by zero"),
        ("\n\ndef f(:\n    pass", 3, "SyntaxError: invalid syntax"),
        ("x = 1\n y = 2", 2, "IndentationError: unexpected indent"),
        ("import sys\nsys.exit(3)", 2, "it called sys.exit(3) when it was imported"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
        ("raise BaseException('odd')", 1, "BaseException: odd"),
        ("raise ValueError('one\\ntwo')", 1, "ValueError: one"),
        ("class E(Exception):\n def __str__(self): 1/0\nraise E", 3, "failing.E: (its text cannot be shown)"),
        ("import json\njson.loads('{')", 2, None),
        ("compile('(', 'elsewhere', 'exec')", 1, None),
    ],
)
def test_a_failure_is_reported_with_its_line_and_one_sentence(tmp_path, source, line, message):
    write(tmp_path, failing=source)

    [problem] = import_in_a_process(tmp_path).problems

    assert (problem.module, problem.file, problem.line) == ("failing", str(tmp_path / "failing.py"), line)
    assert message in {None, problem.message}
    assert "\n" not in problem.message


def test_a_problem_points_to_the_deepest_line_inside_the_folder(tmp_path):
    write(
        tmp_path, _common="import json\ndef load():\n    return json.loads('{')", words="import _common\n_common.load()"
    )

    [problem] = import_in_a_process(tmp_path).problems

    assert (problem.module, problem.file, problem.line) == ("words", str(tmp_path / "_common.py"), 3)


def test_misuse_of_the_decorator_is_reported_with_function_and_line(tmp_path):
    source = """
    from supervisor import handler

    @handler("resize", timeout="soon")
    def resize(): ...
    """
    write(tmp_path, pictures=source)

    [problem] = import_in_a_process(tmp_path).problems

    assert problem.line in {4, 5}  # Python versions differ in where a decorator is called
    assert problem.message.startswith("ValueError: handler 'resize' (resize): timeout: 'soon' is not a duration")


def test_handlers_of_a_failed_module_are_not_served(tmp_path):
    write(tmp_path, a=serving("a", below="1 / 0"), b=serving("a"))

    imported = import_in_a_process(tmp_path)

    assert [(known.action, known.module) for known in imported.handlers] == [("a", "b")]
    assert [problem.module for problem in imported.problems] == ["a"]


def test_handlers_in_submodules_of_a_failed_package_are_not_served(tmp_path):
    (tmp_path / "crop").mkdir()
    (tmp_path / "crop" / "__init__.py").write_text("import crop.work\n1 / 0\n")
    (tmp_path / "crop" / "work.py").write_text(serving("crop"))

    imported = import_in_a_process(tmp_path, after="assert not [name for name in sys.modules if 'crop' in name]")

    assert actions(imported) == []
    assert [problem.module for problem in imported.problems] == ["crop"]


def test_a_module_that_imports_a_failing_one_fails_with_it(tmp_path):
    write(
        tmp_path,
        a=serving("a", below="1 / 0"),
        b="import a\n" + serving("b"),
        c="import b\n" + serving("c"),
        d=serving("d"),
    )

    imported = import_in_a_process(tmp_path)

    assert actions(imported) == ["d"]
    assert [problem.module for problem in imported.problems] == ["a", "b", "c"]


def test_modules_that_import_each_other_are_imported_once(tmp_path):
    write(tmp_path, a="import b\n" + serving("a"), b=serving("b"))

    imported = import_in_a_process(tmp_path)

    assert actions(imported) == ["a", "b"]
    assert imported.problems == ()


def test_two_handlers_of_one_action_are_reported_with_both_locations(tmp_path):
    write(tmp_path, a=serving("same"), b=serving("same"), c=serving("other"))

    imported = import_in_a_process(tmp_path)

    assert actions(imported) == ["other"]
    [problem] = imported.problems
    assert problem.module == "a"
    assert problem.message == (
        f"action 'same' is claimed by function in {tmp_path / 'a.py'}, line 3 "
        f"and by function in {tmp_path / 'b.py'}, line 3: none serves"
    )


@pytest.mark.parametrize(
    ("name", "owner"),
    [("json", "Python's standard library"), ("queue", "Python's standard library"), ("msgspec", "an installed module")],
)
def test_a_file_named_like_an_installed_module_is_reported_and_not_imported(tmp_path, name, owner):
    write(tmp_path, **{name: serving("wrong"), "words": "import concurrent.futures.thread\n" + serving("words")})

    imported = import_in_a_process(tmp_path, after=f"import {name}; assert {str(tmp_path)!r} not in {name}.__file__")

    assert actions(imported) == ["words"]
    [problem] = imported.problems
    assert problem.file == str(tmp_path / f"{name}.py")
    assert problem.message.startswith(f"the name {name!r} belongs to {owner}")


def test_an_installed_module_is_recognized_before_its_first_import(tmp_path):
    write(tmp_path, click=serving("wrong"))

    [problem] = import_in_a_process(tmp_path).problems

    assert "belongs to an installed module" in problem.message


def test_modules_of_the_same_name_in_two_folders_are_reported_with_both_paths(tmp_path):
    first, second = write(tmp_path / "first", words=serving("a")), write(tmp_path / "second", words=serving("b"))

    imported = import_in_a_process(first, second)

    assert actions(imported) == ["a"]
    [problem] = imported.problems
    assert problem.file == str(second / "words.py")
    assert problem.message == f"module 'words' is there twice: {first / 'words.py'} is imported instead"


def test_a_folder_given_twice_is_imported_once(tmp_path):
    write(tmp_path / "real", words=serving("a"))
    (tmp_path / "link").symlink_to(tmp_path / "real")

    imported = import_in_a_process(tmp_path / "real", tmp_path / "link")

    assert actions(imported) == ["a"]
    assert imported.problems == ()


def test_a_file_name_that_is_no_identifier_is_reported(tmp_path):
    (tmp_path / "my-words.py").write_text(serving("a"))

    [problem] = import_in_a_process(tmp_path).problems

    assert problem.message == "'my-words' is not a module name: use letters, digits and '_'"


def test_a_missing_folder_is_reported_and_the_others_are_served(tmp_path):
    write(tmp_path / "here", words=serving("a"))

    imported = import_in_a_process(tmp_path / "gone", tmp_path / "here")

    assert actions(imported) == ["a"]
    [problem] = imported.problems
    assert (problem.module, problem.file) == ("", str(tmp_path / "gone"))
    assert problem.located_message == f"the handlers folder {tmp_path / 'gone'} does not exist"


def test_a_path_that_is_no_folder_is_reported(tmp_path):
    (tmp_path / "file").touch()

    messages = [
        problem.located_message
        for problem in import_in_a_process(tmp_path / "file", tmp_path / "file" / "below").problems
    ]

    assert messages == [
        f"the handlers folder {tmp_path / 'file'} is no folder",
        f"the handlers folder {tmp_path / 'file' / 'below'} cannot be read: Not a directory",
    ]


@pytest.mark.root("only root can become another user")
@pytest.mark.parametrize("mode", [0o700, 0o711, 0o744])
def test_an_unreadable_folder_is_reported(mode):
    with TemporaryDirectory() as path:
        Path(path).chmod(mode)

        [problem] = import_in_a_process(path, before="import os; os.setuid(65534)").problems

    assert problem.located_message == f"the handlers folder {path} cannot be read: Permission denied"


def test_each_module_is_announced_before_it_is_imported(tmp_path):
    before = "import __main__, pathlib\n__main__.announced.append(pathlib.Path(__file__).stem + ' is imported')"
    write(tmp_path, a=serving("a", above=before), b=f"{before}\nimport a\n1 / 0", json=serving("wrong"))

    import_in_a_process(
        tmp_path,
        after=f"assert list(map(str, announced)) == ["
        f"\"module 'a' ({tmp_path / 'a.py'})\", 'a is imported', \"module 'b' ({tmp_path / 'b.py'})\", 'b is imported'"
        "], announced",
    )


def test_an_empty_folder_is_no_problem(tmp_path):
    assert import_in_a_process(tmp_path) == Imported((), ())


def test_imports_write_no_bytecode(tmp_path):
    write(tmp_path, words=serving("a"))

    import_in_a_process(tmp_path, after="assert not sys.dont_write_bytecode or sys.flags.dont_write_bytecode")

    assert not (tmp_path / "__pycache__").exists()


def test_the_zygote_loads_no_large_modules_and_starts_no_threads():
    """Every child would inherit such modules from the zygote."""
    program = "import sys, supervisor.child.handler_import; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT, text=True
    ).stdout

    assert not {"asyncio", "aiohttp", "uvloop", "click", "psutil", "structlog"} & set(loaded.split())


def test_world_writable_modules_are_served_with_a_warning(tmp_path):
    write(tmp_path, mine=serving("mine"))
    file = tmp_path / "mine.py"
    tmp_path.chmod(0o777)
    file.chmod(0o666)

    imported = import_in_a_process(tmp_path)

    assert actions(imported) == ["mine"]
    assert imported.warnings == tuple(
        f"{path} can be changed by every user of this machine: chmod o-w is safer" for path in (tmp_path, file)
    )
