"""The operators' page in a real browser, and what is sent to it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from supervisor.page.document import Access, render
from tests import page_story as story
from tests.browser import Browser, started
from tests.page_server import STACK, PageServer

# One browser for all of them.
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def with_job(**changes: object) -> msgspec.Struct:
    return story.status(1, slots=(story.slot(0, story.job(0, **changes)),))


def first_slot(browser: Browser) -> str:
    return browser.texts("#slot-0")[0]


def test_the_table_is_there_without_javascript(browser: Browser) -> None:
    with PageServer(story.status()) as server:
        browser.open(server.url, script=False)
        shown, buttons = first_slot(browser), browser.texts("button[data-do]")

    for part in (
        "render_report",
        "pid 4711",
        "12:34 of 30m",
        "76%",
        "180 MiB of 2 GiB",
        "28 s",
        "page 1530: 4 figures",
    ):
        assert part in shown
    assert buttons == [], "they would do nothing"


@pytest.mark.parametrize("access", list(Access))
def test_every_row_is_as_wide_as_its_table(browser: Browser, access: Access) -> None:
    status = story.status(2, slots=(story.slot(0, story.job(0)), story.slot(1, None)))
    with PageServer(status, access) as server:
        browser.open(server.url, width=1280)
        edges = browser.run(
            "return [...document.querySelectorAll('.slots tbody, .slots tbody tr')].map(each => Math.round(Math.max("
            "...[each, ...each.children].filter(part => part.checkVisibility())"
            ".map(part => part.matches('tr') ? 0 : part.getBoundingClientRect().right))))"
        )

    assert len(edges) == 3
    assert len(set(edges)) == 1, edges


@pytest.mark.parametrize("width", [1280, 1200])
def test_the_longest_pid_stays_in_its_column(browser: Browser, width: int) -> None:
    slot = msgspec.structs.replace(story.slot(0, story.job(0)), pid=4_194_304)
    with PageServer(story.status(1, slots=(slot,))) as server:
        browser.open(server.url, width=width)
        pid, job = browser.run(
            "return ['.slot small', '.job div'].map(each => document.querySelector('#slot-0 ' + each)"
            ".getBoundingClientRect()).map(box => [box.left, box.right, box.height])"
        )

    assert pid[1] < job[0]
    assert pid[2] < 24


def test_it_changes_as_the_worker_does_without_being_loaded_again(browser: Browser) -> None:
    with PageServer(story.status()) as server:
        browser.open(server.url)
        browser.run("window.before = document.querySelector('#slot-0')")
        server.status = with_job(elapsed=800.0)

        browser.until(lambda: "13:20" in first_slot(browser))

        assert browser.run("return window.before === document.querySelector('#slot-0')")
        assert browser.run("return document.title") == "1 of 1 busy · worker-eu-3"
        assert len(browser.texts(".slots tbody tr")) == 1


def test_what_the_operator_does_is_not_undone_by_a_change(browser: Browser) -> None:
    with PageServer(story.troubled()) as server:
        browser.open(server.url)
        browser.click("#alert-reload summary")
        browser.run("document.querySelector('#slot-0 [data-do=stack]').focus(); scrollTo(0, 300)")
        server.status = msgspec.structs.replace(story.troubled(), worker_id="other")

        browser.until(lambda: browser.texts("h1") == ["other"])

        assert browser.run("return document.activeElement.id") == f"stack-of-{story.job(0).job_id}"
        assert browser.run("return scrollY") == 300
        assert "was never closed" in browser.texts("#alert-reload")[0]


def test_it_says_when_it_has_heard_nothing_and_recovers(browser: Browser) -> None:
    with PageServer(story.status()) as server:
        browser.open(server.url)
        browser.until(lambda: browser.run("return source.readyState === EventSource.OPEN"))
        assert browser.texts("#stale") == []

    browser.run("heardAt -= 4500")  # time that the test need not wait
    browser.until(lambda: "No word from the supervisor" in "".join(browser.texts("#stale")))

    with PageServer(with_job(elapsed=900.0), port=server.port):
        browser.until(lambda: "15:00" in first_slot(browser))
        assert browser.texts("#stale") == []


@pytest.mark.parametrize("width", [390, 1280])
def test_hostile_text_is_text(browser: Browser, width: int) -> None:
    with PageServer(story.hostile()) as server:
        browser.open(server.url, width=width)
        browser.until(lambda: browser.run("return heardAt > triedAt"))

        assert "</script></main>\\u001b[31m\\u202e{{body}}" in browser.texts("h1")[0]
        assert browser.run("return document.title").startswith("2 of 2 busy")
        assert browser.run("return document.querySelectorAll('img, main script').length") == 0
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.complaints() == []


@pytest.mark.parametrize("count", [1, 8, 64])
def test_a_phone_need_not_scroll_sideways(browser: Browser, count: int) -> None:
    with PageServer(story.status(count)) as server:
        browser.open(server.url, width=390)

        assert browser.run("return document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_all_text_stands_out_from_its_ground(browser: Browser, scheme: str, width: int) -> None:
    with PageServer(story.troubled()) as server:
        browser.open(server.url, width=width, scheme=scheme)
        browser.run("document.querySelectorAll('details').forEach(details => { details.open = true; })")

        contrasts = browser.contrasts()

    assert len(contrasts) > 100
    assert [(ratio, text) for ratio, text in contrasts if ratio < 4.5] == []


def test_it_asks_for_nothing_elsewhere(browser: Browser) -> None:
    with PageServer(story.troubled()) as server:
        browser.open(server.url)
        browser.until(lambda: browser.run("return heardAt > triedAt"))

        asked = {url for url in browser.asked_for() if not url.startswith("data:")}

        assert asked == {server.url, f"{server.url}events?as=html"}
        assert browser.complaints() == []


def test_cancel_asks_first_and_then_reaches_the_server(browser: Browser) -> None:
    with PageServer(with_job(job_id="job/<1>?")) as server:
        browser.open(server.url)
        browser.click("#slot-0 [data-do=cancel]")
        assert "job/<1>?" in browser.texts("#confirm")[0]
        browser.click("#confirm-no")
        assert server.asked == []

        browser.click("#slot-0 [data-do=cancel]")
        browser.click("#confirm-yes")

        browser.until(lambda: server.asked == ["POST /jobs/job%2F%3C1%3E%3F/cancel"])
        browser.until(lambda: browser.texts("#notice") == ["render_report is asked to stop."])


def test_a_refusal_is_told_in_the_words_of_the_server(browser: Browser) -> None:
    with PageServer(with_job()) as server:
        server.refusal = "no job <b> runs here"
        browser.open(server.url)
        browser.click("#slot-0 [data-do=cancel]")
        browser.click("#confirm-yes")

        browser.until(lambda: browser.texts("#notice") == ["That did not work: no job <b> runs here"])


def test_a_stack_is_shown_as_it_is(browser: Browser) -> None:
    with PageServer(with_job()) as server:
        browser.open(server.url)

        browser.click("#slot-0 [data-do=stack]")

        browser.until(lambda: browser.texts("#stack-text") == [STACK])


def test_claims_are_paused_and_resumed(browser: Browser) -> None:
    with PageServer(story.status()) as server:
        browser.open(server.url)
        browser.click("#pause")
        server.status = story.troubled()

        browser.until(lambda: browser.texts("#resume"))
        browser.click("#resume")

        browser.until(lambda: server.asked == ["POST /pause", "POST /resume"])


def test_who_may_only_look_is_offered_nothing(browser: Browser) -> None:
    with PageServer(story.status(), Access.LOOK) as server:
        browser.open(server.url)

        assert browser.texts("button") == []


def test_the_right_token_unlocks_and_a_wrong_one_is_asked_for_again(browser: Browser) -> None:
    with PageServer(with_job(), Access.UNLOCK, token="right") as server:
        browser.open(server.url)
        assert browser.texts("#slot-0 button") == []
        for token in ("wrong", "right"):
            browser.driver.find_element("id", "secret").send_keys(f"{token}\n")
            browser.click("#slot-0 [data-do=stack]")
            browser.until(lambda: browser.texts("#stack-text") not in ([], ["…"]))
            browser.click("#stack-close")

        assert server.asked == [f"GET /jobs/{story.job(0).job_id}/stack"]
        browser.driver.refresh()
        assert browser.texts("#slot-0 button") == ["Stack", "Cancel"], "it is kept while the tab is open"


def test_a_page_of_another_edition_loads_itself_anew(browser: Browser) -> None:
    with PageServer(story.status()) as server:
        browser.open(server.url)

        browser.run("main.firstElementChild.dataset.edition = 'old'; main.id = 'old'")

        browser.until(lambda: browser.run("return document.querySelector('main').id") == "")


def test_what_a_job_says_is_no_placeholder_and_stays_short() -> None:
    page = render(story.hostile(), Access.STEER)

    assert page.count("<footer>") == 1
    assert "{{body}}" in page
    assert len(page) < 300_000


def test_what_a_free_child_keeps_and_a_beat_that_is_not_sent_are_shown() -> None:
    free = msgspec.structs.replace(story.slot(1, None), memory=180 << 20)
    silent = story.slot(0, story.job(0, beat_overdue=True))

    page = render(story.status(2, slots=(silent, free)), Access.LOOK)

    assert "idle · pid 4712 · 41 jobs · 180 MiB" in page
    assert "no heartbeat is sent" in page
