"""What is no regular file is not waited for, and none is read beyond what is asked for."""

from __future__ import annotations

import os
from pathlib import Path

from supervisor.settings.safe_read import read_regular


def test_so_much_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")

    assert read_regular(file, 4) == b"cont"
    assert read_regular(file, 100) == b"content"


def test_anything_else_is_told_from_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")

    assert read_regular(tmp_path / "empty", 4) == b""
    assert [read_regular(other, 4) for other in (tmp_path / "pipe", tmp_path, Path("/dev/zero"))] == [None] * 3
