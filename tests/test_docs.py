"""README and docs/ match the program: links, snippets, options, and the texts of generated tables."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from docs import generated
from supervisor import exit_code
from supervisor.cli.main import main
from supervisor.control.health import MAX_SERVER_SILENCE
from supervisor.devserver.faults import parse_text
from supervisor.exit_code import ExitCode
from supervisor.service.service import SPOOLED_OUTCOME_TIMEOUT
from supervisor.settings.settings import OPTIONS
from tests.handler_world import World

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Options of other tools that the pages mention.
FOREIGN = {"--no-block", "--now", "--unix-socket"}


def each_page(*pages: Path) -> Any:
    return pytest.mark.parametrize("page", pages or PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def flags(commands: dict[str, Any]) -> Iterator[str]:
    """The options of these commands and of their subcommands."""
    for command in commands.values():
        yield from (flag for option in command.params for flag in option.opts)
        yield from flags(getattr(command, "commands", {}))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def snippets(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@each_page()
def test_every_relative_link_has_a_target(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link]

    for link in links:
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_page()
def test_every_option_that_a_page_mentions_exists(page: Path) -> None:
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text()))

    assert mentioned - FOREIGN <= {*flags(main.commands), "--help"}


@each_page(README, ROOT / "docs/getting-started.md", ROOT / "docs/handlers/writing.md")
def test_the_example_handler_runs(page: Path, tmp_path: Path) -> None:
    (example,) = snippets(page, "python")
    scope: dict[str, Any] = {"__name__": f"example_of_{page.stem}"}
    world = World(tmp_path)

    exec(compile(example, page.name, "exec"), scope)

    assert scope["shout"](world.context(), "hello", 2) == {"shouted": "HELLO HELLO"}
    assert world.progress[-1] == {"done": 2, "total": 2}
    # `mypy --strict` rejects a container without the type of its items.
    assert not {dict, list, set, tuple} & set(get_type_hints(scope["shout"]).values())


def test_the_example_of_a_fault_script_is_valid() -> None:
    (script,) = snippets(ROOT / "docs/handlers/testing.md", "toml")

    parse_text(script, is_json=False)


def test_the_example_of_a_settings_file_is_valid() -> None:
    (file,) = snippets(ROOT / "docs/reference/settings.md", "toml")

    assert set(tomllib.loads(file)) <= {option.name for option in OPTIONS.values()}


def test_the_readme_is_a_front_page() -> None:
    lines = README.read_text().splitlines()

    assert len(lines) <= 160
    assert {"make demo", "make test"} <= {line.strip().partition("  ")[0] for line in lines[:24]}


def test_the_table_of_error_types_is_complete() -> None:
    assert set(generated.ERROR_TYPES) == generated.reported_error_types()


def test_every_exit_code_has_a_meaning() -> None:
    assert set(generated.attribute_texts(exit_code.__file__, "ExitCode")) == set(ExitCode.__members__)


@pytest.mark.parametrize("name", generated.TABLES)
def test_every_table_can_be_generated(name: str) -> None:
    assert len(generated.TABLES[name]()) > 100


def test_every_setting_has_a_section() -> None:
    assert set(re.findall(r"^### `(--[\w-]+)`$", generated.settings(), re.MULTILINE)) == {
        option.flag for option in OPTIONS.values()
    }


def test_figures_of_the_operating_pages_are_those_of_the_program() -> None:
    status = (ROOT / "docs/operate/status-and-page.md").read_text()
    signals = (ROOT / "docs/operate/signals-and-reload.md").read_text()

    assert f"no claim answered for {MAX_SERVER_SILENCE:g} s" in status
    assert f"ends {SPOOLED_OUTCOME_TIMEOUT:g} s after all outcomes are on disk" in signals
