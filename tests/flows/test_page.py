"""The page of the running program, in a real browser: an operator sees a job at work and cancels it."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.devserver.app import DevServer
from tests.browser import Browser, started
from tests.harness import GENEROUS, event, finished_job, logged, program, reports, start_job

# The browser of the other tests of pages is not to be at work at the same time.
pytestmark = [
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_factories=["uvloop"]),  # what the program runs on
]

TOKEN = "a-token-of-the-tests"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with started(tmp_path / "profile") as browser:
        yield browser


async def test_a_job_is_seen_and_cancelled(browser: Browser, server: DevServer, state: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    given = {"listen": "127.0.0.1:0", "listen_token_file": str(secret), "cancel_grace": "200ms"}
    async with program(server.url, state, workers="1", **given) as process:
        run_id = await start_job(server, "sits-in-c")
        await event(server, run_id, "working")
        await logged(state, '"listening"')
        (page,) = re.findall(r'"page":"(\S+?)"', (state / "log").read_text())

        await asyncio.to_thread(unlock_and_cancel, browser, page)

        job = await finished_job(server, run_id)
        assert reports(server, job.id)[0].body["error_type"] == "Cancelled"
        await asyncio.to_thread(browser.until, lambda: "idle" in browser.texts(".slots")[0])
        assert browser.complaints() == []
        process.send_signal(signal.SIGQUIT)
        await asyncio.wait_for(process.wait(), GENEROUS)


def unlock_and_cancel(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.until(lambda: "sits-in-c" in browser.texts(".slots")[0])
    browser.driver.find_element("css selector", "#secret").send_keys(TOKEN)
    browser.click("#token button")
    browser.until(lambda: browser.texts("[data-do=cancel]"))
    browser.click("[data-do=cancel]")
    browser.click("#confirm-yes")
