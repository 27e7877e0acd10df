"""The token of `--listen-token-file`: what is one, and that no file can keep us waiting."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest

from supervisor.control.access import read_token
from supervisor.settings.resolution import ConfigError

TOKEN = "a-token-of-the-tests"


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_token(path)
    return str(caught.value).removeprefix(f"--listen-token-file: {path} ")


def test_a_token_is_read_without_the_white_space_around_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f" {TOKEN}\n\n")

    assert read_token(tmp_path / "token") == TOKEN


def test_a_byte_order_mark_is_no_part_of_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(codecs.BOM_UTF8 + TOKEN.encode() + b"\r\n")

    assert read_token(tmp_path / "token") == TOKEN


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"short", "must hold a token of at least 16 characters"),
        (b"two words that are long", "must hold one token, without white space in it"),
        (b"token-of-the-tests\ntoken-of-the-tests", "must hold one token, without white space in it"),
        (b"token-of-the-tests\x00", "has NUL bytes in it"),
        ("token-of-the-tests".encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
        (b"token-of-the-tests\xff", "is not UTF-8 text"),
        (b"x" * 1025, "is longer than 1024 bytes: is it the right file?"),
    ],
)
def test_what_is_no_token_is_one_sentence(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "token").write_bytes(content)

    assert refusal(tmp_path / "token").startswith(why)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    told = [refusal(path) for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path)]

    assert told == ["must be a regular file"] * 3


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == "cannot be read: No such file or directory"
