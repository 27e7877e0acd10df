from __future__ import annotations

import codecs
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import pytest

from supervisor.settings.credential import CredentialSource, project_of
from supervisor.settings.resolution import ConfigError


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("mbx_file\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def systemd(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "mobius-api-key").write_text("mbx_systemd\n")
    (folder / "mobius-api-key").chmod(0o440)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def complaint(source: CredentialSource) -> str:
    with pytest.raises(ConfigError) as caught:
        source.read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_file_wins_over_systemd_and_that_over_the_environment(key_file: Path, systemd: dict[str, str]) -> None:
    key = {"MOBIUS_API_KEY": "mbx_environment"}

    tokens = [
        CredentialSource(key_file, systemd | key).read().token,
        CredentialSource(None, systemd | key).read().token,
        CredentialSource(None, dict(key)).read().token,
    ]

    assert tokens == ["mbx_file", "mbx_systemd", "mbx_environment"]


def test_the_key_is_removed_from_the_environment_even_when_a_file_is_used(key_file: Path) -> None:
    environment = {"MOBIUS_API_KEY": "mbx_environment", "PATH": "/bin"}

    CredentialSource(key_file, environment)

    assert environment == {"PATH": "/bin"}


def test_a_key_from_the_environment_can_be_read_again() -> None:
    source = CredentialSource(None, {"MOBIUS_API_KEY": "mbx_x"})

    assert source.read() == source.read()


def test_a_file_is_read_anew_each_time(key_file: Path) -> None:
    source = CredentialSource(key_file, {})
    source.read()

    key_file.write_text("mbx_rotated")

    assert source.read().token == "mbx_rotated"


def test_a_pipe_is_read_once_and_remembered(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("mbx_piped\n",))
    writer.start()
    source = CredentialSource(pipe, {})

    first, second = source.read(), source.read()
    writer.join()

    assert first.token == second.token == "mbx_piped"


def test_a_file_that_has_become_a_pipe_is_not_waited_for(key_file: Path) -> None:
    source = CredentialSource(key_file, {})
    source.read()
    key_file.unlink()
    os.mkfifo(key_file)

    with pytest.raises(ConfigError, match=rf"^the API key file {key_file} must be a regular file, to be read again$"):
        source.read()


READ_STANDARD_INPUT = """
import json, os, sys
from pathlib import Path
from supervisor.settings.resolution import ConfigError
from supervisor.settings.credential import CredentialSource

source = CredentialSource(Path("-"), {})
try:
    read = [source.read().token, source.read().token]
except ConfigError as error:
    sys.exit(str(error))
print(json.dumps({
    "read": read, "file": str(source.file), "warning": source.read().warning, "place": source.place,
    "stdin": os.readlink("/proc/self/fd/0"), "left": sys.stdin.read(),
}))
"""


def reading(stdin: IO[bytes] | int) -> tuple[dict[str, Any], str]:
    """What a process tells that takes the key from its standard input, and its complaint."""
    command = [sys.executable, "-c", READ_STANDARD_INPUT]
    ended = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
    return (json.loads(ended.stdout) if ended.returncode == 0 else {}), ended.stderr


def test_standard_input_is_read_once_and_then_gone(key_file: Path) -> None:
    with key_file.open("rb") as stdin:
        told, _ = reading(stdin)

    assert told["read"] == ["mbx_file", "mbx_file"]
    assert (told["stdin"], told["left"]) == ("/dev/null", "")
    assert told["place"] == "standard input, which is read at the start only"


def test_the_file_behind_standard_input_is_known_to_be_hidden(key_file: Path) -> None:
    key_file.chmod(0o644)
    with key_file.open("rb") as stdin:
        told, _ = reading(stdin)
    with key_file.open("rb") as stdin:
        key_file.unlink()
        removed, _ = reading(stdin)

    assert told["file"] == str(key_file)
    assert told["warning"].startswith(f"other users can read the API key file {key_file}")
    assert (removed["file"], removed["warning"]) == ("None", None)


def test_standard_input_may_be_a_pipe_that_is_filled_piece_by_piece() -> None:
    reading_end, writing_end = os.pipe()

    def fill() -> None:
        with open(writing_end, "wb", buffering=0) as pipe:
            pipe.writelines([b"mbx_", b"pi", b"ped\n"])

    writer = threading.Thread(target=fill)
    writer.start()
    with open(reading_end, "rb") as stdin:
        told, _ = reading(stdin)
    writer.join()

    assert told["read"] == ["mbx_piped", "mbx_piped"]
    assert told["file"] == "None"


def test_a_standard_input_without_a_key_is_one_sentence(tmp_path: Path) -> None:
    terminal, other_end = os.openpty()
    with tmp_path.joinpath("closed").open("w") as output:
        closed = f'exec "$0" -c "$1" <&- 2>"{output.name}"'
        subprocess.run(["sh", "-c", closed, sys.executable, READ_STANDARD_INPUT], check=False)

    complaints = [reading(subprocess.DEVNULL)[1], reading(terminal)[1], (tmp_path / "closed").read_text()]

    assert complaints == [
        "the API key in standard input is empty\n",
        "the API key cannot be read from standard input: it is a terminal, which would show the key\n",
        "the API key cannot be read from standard input: it is closed\n",
    ]
    os.close(terminal)
    os.close(other_end)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_one_newline_at_the_end_of_a_file_is_no_part_of_the_key(key_file: Path, ending: str) -> None:
    key_file.write_bytes(b"acme/mbx_aB.c+/=" + ending.encode())

    assert CredentialSource(key_file, {}).read().token == "acme/mbx_aB.c+/="


def test_a_byte_order_mark_is_no_part_of_the_key(key_file: Path) -> None:
    key_file.write_bytes(codecs.BOM_UTF8 + b"mbx_a\r\n")

    assert CredentialSource(key_file, {}).read().token == "mbx_a"


def test_a_key_in_utf_16_is_told_by_its_encoding(key_file: Path) -> None:
    key_file.write_bytes("mbx_a\n".encode("utf-16"))

    assert complaint(CredentialSource(key_file, {})).endswith(f"{key_file} is UTF-16 text: save it as UTF-8")


@pytest.mark.parametrize(
    "content", [b"mbx_a\n\n", b"mbx_a\nmbx_b", b" mbx_a", b"mbx_\x00", b"mbx_\xc3\xbc", b"mbx_\xff"]
)
def test_a_key_with_other_characters_than_a_header_takes_is_refused(key_file: Path, content: bytes) -> None:
    key_file.write_bytes(content)

    said = complaint(CredentialSource(key_file, {}))

    assert str(key_file) in said
    assert "mbx_" not in said


def test_an_empty_a_missing_and_an_unreadable_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")

    assert "is empty" in complaint(CredentialSource(tmp_path / "empty", {}))
    assert "No such file" in complaint(CredentialSource(tmp_path / "missing", {}))
    assert "Is a directory" in complaint(CredentialSource(tmp_path, {}))


def test_a_file_that_cannot_be_a_key_is_not_read_whole() -> None:
    assert "is it the right file" in complaint(CredentialSource(Path("/dev/zero"), {}))


def test_no_source_at_all_names_the_ways() -> None:
    source = CredentialSource(None, {"MOBIUS_API_KEY": ""})

    assert not source.is_given
    assert "MOBIUS_API_KEY or --api-key-file" in complaint(source)


@pytest.mark.parametrize(
    ("token", "project"),
    [
        ("mbx_secret", None),
        ("acme/mbx_secret", "acme"),
        ("mbx_secret.acme-video", "acme-video"),
        ("mbx_se.cret.acme", "acme"),
        ("mbx_secret.Acme", None),
        ("anything", None),
        ("acme/other", None),
    ],
)
def test_a_decorated_key_names_its_project(token: str, project: str | None) -> None:
    assert project_of(token) == project
    assert CredentialSource(None, {"MOBIUS_API_KEY": token}).read().token == token


@pytest.mark.parametrize(("mode", "is_warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_can_read_is_warned_of(key_file: Path, mode: int, *, is_warned: bool) -> None:
    key_file.chmod(mode)

    warning = CredentialSource(key_file, {}).read().warning

    assert bool(warning) == is_warned


def test_the_group_bits_of_a_systemd_credential_are_no_reason_to_warn(systemd: dict[str, str]) -> None:
    named = Path(systemd["CREDENTIALS_DIRECTORY"]) / "mobius-api-key"

    assert CredentialSource(None, systemd).read().warning is None
    assert CredentialSource(named, systemd).read().warning is None


def test_the_key_shows_in_no_repr_and_cannot_be_pickled() -> None:
    source = CredentialSource(None, {"MOBIUS_API_KEY": "mbx_secret"})

    shown = f"{source!r} {source.read()!r} {source.read()}"

    assert "secret" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(source)
