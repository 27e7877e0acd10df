"""A read that hangs holds neither the event loop nor the end of the program."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path

import pytest

from supervisor.settings import bounded_read
from supervisor.settings.bounded_read import BoundedRead
from supervisor.settings.resolution import ConfigError
from supervisor.settings.safe_read import read_regular
from tests.lease import leased


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"content")
    return tmp_path / "file"


async def test_what_is_read_is_returned_and_what_is_wrong_is_raised(file: Path) -> None:
    assert await BoundedRead("it", partial(read_regular, file, 100))() == b"content"
    with pytest.raises(FileNotFoundError):
        await BoundedRead("it", partial(read_regular, file.with_name("nothing"), 100))()


async def test_callers_at_one_time_share_one_read() -> None:
    threads = []
    read = BoundedRead("it", lambda: threads.append(threading.current_thread()))

    await asyncio.gather(*(read() for _ in range(5)))
    await read()

    assert len(set(threads)) == 2


async def test_a_file_that_hangs_is_one_thread_and_one_sentence_until_it_answers(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_read, "READ_TIMEOUT", 0.1)
    before = threading.active_count()
    read = BoundedRead("the settings", partial(read_regular, file, 100))

    with leased(file):
        with pytest.raises(ConfigError, match=r"^the settings cannot be read within 0\.1 s: look at the mount of"):
            await read()
        for _ in range(3):
            with pytest.raises(ConfigError, match=r"an earlier read still waits for its file system$"):
                await read()
        assert threading.active_count() == before + 1
    monkeypatch.setattr(bounded_read, "READ_TIMEOUT", 20.0)
    async with asyncio.timeout(20):
        while True:
            try:
                assert await read() == b"content"
                break
            except ConfigError:  # the thread that waited has not come back yet
                await asyncio.sleep(0.01)
