"""What is installed is all that there is: packages and files are named one by one in `pyproject.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_is_installed() -> None:
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "supervisor").rglob("__init__.py")}

    assert set(SETUPTOOLS["packages"]) == found


def test_every_file_that_is_no_module_is_installed() -> None:
    patterns = SETUPTOOLS["package-data"]
    installed = {file for package, names in patterns.items() for name in names for file in folder(package).glob(name)}
    found = {file for file in (ROOT / "supervisor").rglob("*") if file.is_file() and "__pycache__" not in file.parts}

    assert {file for file in found if file.suffix != ".py"} == installed


def folder(package: str) -> Path:
    return ROOT.joinpath(*package.split("."))
