"""Files with handlers that no module imports are reported."""

from __future__ import annotations

from pathlib import Path

from tests.child.test_handler_authors import HEAD, actions, by_file, imported


def test_handlers_that_no_module_imports_are_problems_and_helpers_are_not(tmp_path: Path) -> None:
    serving = f"{HEAD}@handler('x')\ndef f(): ...\n"
    renamed = "import supervisor as s\n@s.handler('x')\ndef f(): ...\n"
    files = {
        "reports/monthly.py": serving,
        "reports/_helper.py": serving,
        "reports/plain.py": "# supervisor handler\n",
        "reports/deep/er/yearly.py": serving,
        "billing/__init__.py": "import billing.used\n",
        "billing/used.py": serving.replace("'x'", "'used'"),
        "billing/tasks.py": renamed,
        "_private/tasks.py": serving,
        ".hidden/tasks.py": serving,
        "broken/__init__.py": "1 / 0\n",
        "broken/tasks.py": serving,
    }
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "handlers").mkdir()
    (tmp_path / "elsewhere" / "linked.py").write_text(serving)
    (tmp_path / "handlers" / "link").symlink_to(tmp_path / "elsewhere")

    found, linked = imported(tmp_path), imported(tmp_path / "handlers")

    problems = by_file(found, tmp_path)
    missing = "has no __init__.py; add one that imports this file"
    assert actions(found) == {"used"}
    assert {name: (problem.line, problem.message) for name, problem in problems.items()} == {
        "broken/__init__.py": (1, "ZeroDivisionError: division by zero"),
        "billing/tasks.py": (
            2,
            f"the handler is not served: nothing imports this file; import it in {tmp_path}/billing/__init__.py",
        ),
        "reports/monthly.py": (2, f"the handler is not served: {tmp_path}/reports {missing}"),
        "reports/deep/er/yearly.py": (2, f"the handler is not served: {tmp_path}/reports {missing}"),
        "elsewhere/linked.py": (2, f"the handler is not served: {tmp_path}/elsewhere {missing}"),
    }
    assert by_file(linked, tmp_path).keys() == {"handlers/link/linked.py"}
