"""A file of settings says what the command line could, and is told exactly what is wrong with it."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest

from supervisor.settings.resolution import ConfigError, HostInfo, keep_fixed, resolve
from supervisor.settings.settings import Settings
from supervisor.settings.toml_file import MAX_FILE_BYTES, parse_settings, read_settings_file

MACHINE = HostInfo(cpus=6, host="box", pid=71, random="ab12cd", home=Path("/home/user"))
NEEDED = {"MOBIUS_BASE_URL": "https://api.example.com", "PROJECT": "acme"}


def settle(text: str, environment: dict[str, str] | None = None, **given: str) -> Settings:
    texts = {name: (value,) for name, value in given.items()}
    written = parse_settings(text, "settings.toml")
    return resolve(texts, NEEDED | (environment or {}), MACHINE, has_key=True, key_project=None, written=written)


def test_a_setting_is_taken_from_the_file() -> None:
    settings = settle('workers = 3\ndrain-timeout = "1m"\nqueue = ["a", "b"]\nnice = 7\nlog-level = "debug"\n')

    assert (settings.workers, settings.drain_timeout, settings.queues) == (3, 60.0, ("a", "b"))
    assert (settings.nice, settings.log_level) == (7, "debug")


def test_the_command_line_and_the_environment_win_over_the_file() -> None:
    text = "workers = 3\nnice = 1"

    settings = settle(text, {"MOBIUS_SUPERVISOR_WORKERS": "4", "MOBIUS_SUPERVISOR_NICE": "2"}, nice="9")

    assert (settings.workers, settings.nice) == (4, 9)


def test_a_switch_is_true_or_false() -> None:
    assert settle("all-queues = true").queues == ()
    assert settle("all-queues = false").queues == ("default",)


def test_queues_that_are_named_nearer_to_the_user_win_over_all_queues_in_the_file() -> None:
    assert settle("all-queues = true", queue="a").queues == ("a",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("wokers = 3", "settings.toml: there is no setting 'wokers'; is it 'workers'?"),
        ("drain_timeout = 3", "settings.toml: there is no setting 'drain_timeout'; is it 'drain-timeout'?"),
        ("config = 'other.toml'", "settings.toml: there is no setting 'config'"),
        ("workers = 0", "settings.toml: workers: must be at least 1, not '0'"),
        ("workers = 99999999", "settings.toml: workers: must be at most 1,024, not '99999999'"),
        ("workers = [1]", "settings.toml: workers: must be a text, a number, true or false"),
        ("queue = []", "settings.toml: queue: must be a text or a list of texts"),
        ("queue = [1]", "settings.toml: queue: must be a text or a list of texts"),
        ("queue = ['a', 1]", "settings.toml: queue: must be a text or a list of texts"),
        ("queue = true", "settings.toml: queue: must be a text or a list of texts"),
        ("[workers]\nn = 1", "settings.toml: workers: must be"),
        ("workers = = 3", "settings.toml: not TOML: "),
        (f"workers = {'9' * 5000}", "settings.toml: not TOML: "),
        (f"workers = 0x{'f' * 5000}", "settings.toml: not TOML: "),
        (f"workers = {'[' * 100_000}", "settings.toml: not TOML: nested too deeply"),
        ("all-queues = true\nqueue = 'a'", "settings.toml: queue and settings.toml: all-queues exclude each other"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_files_name(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settle(text)

    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("workers = 'x'", "settings.toml: workers: must be a whole number or 'auto', not 'x'"),
        ("drain-timeout = '1 parsec'", "settings.toml: drain-timeout: '1 parsec' is not a duration: "),
        ("queue = ''", "settings.toml: queue: must not be empty"),
    ],
)
def test_a_wrong_value_is_told_of_also_where_another_wins_over_it(text: str, complaint: str) -> None:
    for environment, given in (
        ({}, {"workers": "1", "drain_timeout": "1s", "queue": "a"}),
        ({f"MOBIUS_SUPERVISOR_{name}": "1" for name in ("WORKERS", "DRAIN_TIMEOUT", "QUEUE")}, {}),
    ):
        with pytest.raises(ConfigError) as caught:
            settle(text, environment, **given)
        assert str(caught.value).startswith(complaint)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_settings_file(tmp_path / "missing")


def test_a_byte_order_mark_and_line_ends_of_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "settings").write_bytes(codecs.BOM_UTF8 + b"workers = 3\r\nnice = 7\r\n")

    assert read_settings_file(tmp_path / "settings").texts == {"workers": ("3",), "nice": ("7",)}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("workers = 3\n".encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
        ("workers = 3\n".encode("utf-16-be"), "has NUL bytes in it: save it as UTF-8 text"),
        (b"# caf\xe9\nworkers = 3\n", "is not UTF-8 text (at byte 5)"),
    ],
)
def test_a_file_in_another_encoding_is_one_sentence_with_what_to_do(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "settings").write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        read_settings_file(tmp_path / "settings")

    assert str(caught.value) == f"the settings file {tmp_path / 'settings'} {sentence}"


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ConfigError, match=f"^the settings file {path} must be a regular file$"):
            read_settings_file(path)


def test_a_file_of_any_length_is_not_read_to_its_end(tmp_path: Path) -> None:
    longest = tmp_path / "longest"
    longest.write_text("workers = 3\n".ljust(MAX_FILE_BYTES, "\n"))
    with (tmp_path / "longer").open("w") as file:
        file.truncate(2**40)  # it has no blocks, and would not fit into memory

    assert read_settings_file(longest).texts == {"workers": ("3",)}
    with pytest.raises(ConfigError, match=r"longer is longer than 1 MiB: is it the right file\?$"):
        read_settings_file(tmp_path / "longer")


def test_what_cannot_change_while_the_program_runs_is_kept_and_named() -> None:
    old, new = settle("workers = 1"), settle("workers = 2\nstate-dir = '/other'", project="other")

    settings, refused = keep_fixed(old, new)

    assert (settings.workers, settings.project, settings.state_dir) == (2, "acme", old.state_dir)
    assert refused == ["--project", "--state-dir"]
