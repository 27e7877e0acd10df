"""The README says what is so: its options, exit codes, commands, links and its example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from supervisor.cli.main import main
from supervisor.control.health import MAX_SERVER_SILENCE
from supervisor.control.prometheus import PREFIX, exposition
from supervisor.exit_code import ExitCode
from supervisor.handler_api.options import HandlerOptions
from supervisor.process import environment
from supervisor.service.service import SPOOLED_OUTCOME_TIMEOUT
from supervisor.settings.settings import OPTIONS
from supervisor.stats import Stats
from tests.handler_world import World
from tests.status_world import STATUS


def flags(commands: dict[str, Any]) -> Iterator[str]:
    """The options of these commands and of theirs."""
    for command in commands.values():
        yield from (flag for option in command.params for flag in option.opts)
        yield from flags(getattr(command, "commands", {}))


ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
# Options of the tools that the README tells how to use.
FOREIGN = {"--no-block", "--now", "--unix-socket"}


def rows(heading: str) -> dict[str, list[str]]:
    """The first table below a heading: each row's cells by its first cell."""
    table = re.findall(r"^\|.*\|$", TEXT.partition(f"{heading}\n")[2].partition("\n#")[0], re.MULTILINE)
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table[2:]]
    return {row[0].replace("\\|", "|").strip("`"): row for row in cells}


def anchor_of(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_how_long_a_silent_server_stays_unnoticed_is_told() -> None:
    assert f"no claim answered for {MAX_SERVER_SILENCE:g} s" in TEXT


def test_how_long_a_drain_waits_for_what_is_on_disk_is_told() -> None:
    assert f"is left after {SPOOLED_OUTCOME_TIMEOUT:g} s, once all of them are on disk" in TEXT


def test_how_long_a_claim_waits_at_most_is_told() -> None:
    (row,) = [row for name, row in rows("### Options").items() if name.startswith("--wait-seconds")]

    longest = OPTIONS["wait_seconds"].kind.read("1h")

    assert f"more than {longest:g} is taken as {longest:g}" in row[3]


def test_no_example_names_an_id_that_is_nowhere() -> None:
    assert not re.findall(r"\bjob_[0-9a-f]+\b", TEXT)


def test_the_table_of_options_is_that_of_the_program() -> None:
    named = {row.split()[0] for row in rows("### Options")}

    assert named == {option.flag for option in OPTIONS.values()}


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_an_option_is_shown_as_it_is(option: Any) -> None:
    (row,) = [row for name, row in rows("### Options").items() if name.split()[0] == option.flag]

    assert row[0].replace("\\|", "|").strip("`") == f"{option.flag} {option.kind.metavar}".strip()
    assert re.findall(r"`(\w+)`", row[2]) == list(option.aliases)
    assert (option.default or "") in row[1]
    assert ("required" in row[1]) == option.is_required


def test_every_option_that_is_named_exists() -> None:
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", TEXT)) - FOREIGN <= set(flags(main.commands))


def test_every_option_of_every_command_is_named() -> None:
    assert {flag for flag in flags(main.commands) if flag.startswith("--")} <= set(re.findall(r"--[a-z][\w-]*", TEXT))


def test_the_table_of_exit_codes_is_that_of_the_program() -> None:
    assert {int(code) for code in rows("### Exit codes")} == set(ExitCode)


def test_the_exit_codes_in_the_help_are_those_of_the_table() -> None:
    shown = " ".join(CliRunner().invoke(main, ["run", "--help"]).output.split())

    for code, row in rows("### Exit codes").items():
        assert f"{code} {row[1].partition(';')[0]}" in shown


def test_the_table_of_commands_is_that_of_the_program() -> None:
    assert {name.split()[0] for name in rows("## Command line")} == set(main.commands)


def test_what_needs_a_restart_is_told() -> None:
    told = re.split(r"need a\s+restart", TEXT.partition("Quarantined handlers get a new trial.")[2])[0]

    assert set(re.findall(r"`(--[a-z-]+)`", told)) == {option.flag for option in OPTIONS.values() if option.is_fixed}


def test_the_allow_list_is_that_of_the_program() -> None:
    told = TEXT.partition("An allow-list: ")[2].partition(" names;")[0]

    names = set(re.findall(r"`([A-Z_]+\*?)`", told))

    prefixes = {f"{prefix}*" for prefix in environment._ALLOWED_PREFIXES}
    assert names == environment._ALLOWED | prefixes


def test_every_relative_link_leads_somewhere() -> None:
    headings = {anchor_of(heading) for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)}
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]

    assert links
    assert not [link for link in links if link.startswith("#") and link[1:] not in headings]
    assert not [link for link in links if not link.startswith("#") and not (ROOT / link).exists()]


def test_the_example_works_as_it_stands(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    scope: dict[str, Any] = {"__name__": "example_of_the_readme"}
    world = World(tmp_path)

    exec(compile(example, "README.md", "exec"), scope)

    assert scope["shout"](world.context(), "hello", 2) == {"shouted": "HELLO HELLO"}
    assert world.progress[-1] == {"done": 2, "total": 2}
    # `make check` runs `mypy --strict` on handlers too, which refuses a container without the type of its items.
    assert not {dict, list, set, tuple} & set(get_type_hints(scope["shout"]).values())


def test_what_is_to_be_tried_names_the_file_and_the_program() -> None:
    tried = TEXT.partition("## Try it\n")[2].partition("\n## ")[0]
    (action,) = re.findall(r'@handler\("(\w+)"', TEXT.partition("## Try it\n")[0])

    assert f"`handlers/{action}.py`" in tried
    assert f"submit {action} " in tried
    assert 0 <= tried.find(". .venv/bin/activate\n") < tried.find("mobius-supervisor server\n")


def test_what_to_do_first_is_on_the_first_screen() -> None:
    first = "\n".join(TEXT.splitlines()[:20])

    assert "make demo" in first
    assert "make test" in first
    assert "mobius-supervisor --workers 8" in first


def test_every_argument_of_the_decorator_is_named() -> None:
    assert not [argument for argument in HandlerOptions.__annotations__ if f"`{argument}`" not in TEXT]


def test_every_failure_of_our_own_is_named() -> None:
    sources = "".join(file.read_text() for file in (ROOT / "supervisor").rglob("*.py"))
    types = set(re.findall(r'(?:Failed|StopReason|StopRequest)\(\s*"(\w+)"', sources))

    assert {"Cancelled", "Timeout", "ChildDied"} <= types
    assert not [type_ for type_ in types if f"`{type_}`" not in TEXT]


def test_the_table_of_metrics_is_that_of_the_program() -> None:
    text = exposition(STATUS, Stats()).decode()
    ours = {name.removeprefix(PREFIX) for name in re.findall(rf"^# TYPE ({PREFIX}\w+)", text, re.MULTILINE)}

    named = {name for cell in rows("### Metrics") for name in re.findall(r"\w+", cell)}

    assert named == ours
    assert "`process_" in TEXT
    assert "# TYPE process_" in text


def test_the_labels_of_metrics_are_those_of_the_program() -> None:
    ledger = Stats()
    ledger.job_ended(STATUS.recent[0])
    families = text_string_to_metric_families(exposition(STATUS, ledger).decode())
    labels = {
        sample.name.removeprefix(PREFIX): {label for label in sample.labels if label != "le"}
        for family in families
        for sample in family.samples
        if sample.name.startswith(PREFIX)
    }

    for names, row in rows("### Metrics").items():
        for name in re.findall(r"\w+", names):
            (seen,) = {frozenset(labels[each]) for each in (name, f"{name}_count") if each in labels}
            assert set(re.findall(r"\w+", row[1])) == seen, name
