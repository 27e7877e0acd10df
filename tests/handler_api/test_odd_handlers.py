"""Handlers of every odd kind, in real children: each ends in its own report, and the child lives where it can."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from pathlib import Path
from typing import Any

from supervisor.job import Failed, Succeeded
from tests.harness import GENEROUS
from tests.process_world import Heard, module, run, world

RAISING = """
from supervisor import handler

class TemplateError(SyntaxError):
    pass

class Hidden(type):
    @property
    def __name__(cls):
        raise ValueError

class Unspeakable(Exception, metaclass=Hidden):
    def __str__(self):
        raise SystemExit

@handler("syntax")
def syntax():
    error = TemplateError("unexpected end of block")
    error.filename, error.lineno, error.offset, error.text = "page.tpl", 12, "3", "{% if user %}"
    raise error

@handler("unspeakable")
def unspeakable():
    raise Unspeakable("never shown")

@handler("surrogate")
def surrogate():
    raise type("Odd", (Exception,), {})("caf\\udce9")

@handler("cycle")
def cycle():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    one.__notes__ = 3
    raise one

@handler("many")
def many():
    raise ExceptionGroup("many", [ValueError(str(number)) for number in range(100_000)])

@handler("deep")
def deep():
    error = ValueError("inside")
    for _ in range(5000):
        error = ExceptionGroup("deep", [error])
    raise error

@handler("noted")
def noted():
    error = ValueError("of many notes")
    error.__notes__ = ["note"] * 1_000_000
    raise error
"""


async def outcome_of(child: Any, action: str) -> Any:
    told = await run(child, action)
    assert told.reusable, action
    return told.outcome


async def test_an_exception_of_any_kind_fails_its_job_with_its_name_and_the_child_lives(tmp_path: Path) -> None:
    expected = {
        "syntax": ("TemplateError", "unexpected end of block"),
        "unspeakable": ("Unspeakable", "(its text cannot be shown)"),
        "surrogate": ("Odd", "caf\\udce9"),
        "cycle": ("ValueError", "one"),
        "many": ("ExceptionGroup", "many (100000 sub-exceptions)"),
        "deep": ("ExceptionGroup", "deep (1 sub-exception)"),
        "noted": ("ValueError", "of many notes"),
    }
    async with world(module(tmp_path / "odd", RAISING)) as here:
        child = await here.child()
        for action, (name, text) in expected.items():
            outcome = await outcome_of(child, action)

            assert isinstance(outcome, Failed)
            assert (outcome.error_type, outcome.message.partition("\n")[0].partition(" (page.tpl")[0]) == (name, text)
            assert "under_test.py" in outcome.message
            assert len(outcome.message.encode()) <= 8 * 1024


async def test_a_module_that_raises_what_python_cannot_write_is_a_problem_and_no_end(tmp_path: Path) -> None:
    folder = module(tmp_path / "odd", RAISING)
    (folder / "a_failing.py").write_text(
        "error = SyntaxError('odd \\udce9')\nerror.lineno, error.offset = '3', '4'\nraise error"
    )

    async with world(folder) as here:
        [problem] = here.zygote.imported.problems

        assert (problem.module, problem.message) == ("a_failing", "SyntaxError: odd \\xe9")
        assert "syntax" in here.zygote.actions


ENDING = """
import argparse, asyncio, multiprocessing, sys, threading
from supervisor import handler

forever = threading.Event()

def double(number):
    return 2 * number

@handler("argv")
def argv():
    argparse.ArgumentParser().parse_args()
    return [sys.argv, sys.orig_argv[1:]]

@handler("spawn")
def spawn():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(double, [1, 2])

@handler("thread-goes-on")
async def thread_goes_on():
    try:
        await asyncio.wait_for(asyncio.to_thread(forever.wait), 0.01)
    except TimeoutError:
        return "from the cache"

@handler("thread-ends")
async def thread_ends():
    return await asyncio.to_thread(double, 4)

@handler("generator-left")
async def generator_left():
    async def pages():
        try:
            yield 1
        finally:
            closed.append(True)
    closed = []
    await anext(pages())
    await asyncio.sleep(0)
    return "read one"
"""


async def test_handlers_see_a_command_line_of_their_own_and_can_spawn(tmp_path: Path) -> None:
    async with world(module(tmp_path / "own", ENDING)) as here:
        child = await here.child()

        assert await result_of(child, "argv") == [["mobius-supervisor"], ["mobius-supervisor"]]
        assert await result_of(child, "spawn") == [2, 4]


async def test_the_result_of_a_coroutine_is_there_though_a_thread_of_its_loop_goes_on(tmp_path: Path) -> None:
    async with world(module(tmp_path / "own", ENDING)) as here:
        child = await here.child()
        assert (await run(child, "thread-ends")).reusable
        assert (await run(child, "generator-left")).reusable

        told = await run(child, "thread-goes-on")

        assert told.outcome == Succeeded(base64.b64encode(b'"from the cache"'))
        assert not told.reusable


async def result_of(child: Any, action: str) -> Any:
    outcome = (await run(child, action)).outcome
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(base64.b64decode(outcome.result))


LOGGING = """
import logging, os, signal, sys, warnings
from supervisor import handler

log = logging.getLogger("books.reader")
log.addHandler(logging.NullHandler())
log.warning("at import")

@handler("logs")
def logs():
    log.debug("no debug line")
    log.info("an %s line", "ordinary")
    log.error("an odd %d line", "x")
    logging.warning("of the root")
    warnings.warn("old way", FutureWarning)
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed")

@handler("configures")
def configures():
    logging.basicConfig(level=logging.DEBUG, format="%(message)s")
    log.debug("a debug line")
    log.setLevel(logging.WARNING)
    log.info("no info line")

@handler("prints-its-own")
def prints_its_own():
    logging.root.handlers.clear()
    logging.root.addHandler(logging.StreamHandler())
    log.error("printed once")

@handler("forks")
def forks():
    if os.fork() == 0:
        log.error("of a fork")
        os._exit(0)
    os.wait()

@handler("finalizes")
def finalizes(context):
    def log_in_the_middle(frame, event, _):  # as a finalizer does, wherever the garbage collector runs
        if (frame.f_code.co_name, event) == ("_send_once", "call"):
            sys.setprofile(None)
            log.error("in the middle")

    sys.setprofile(log_in_the_middle)
    context.emit("page", {})

signal.signal(signal.SIGUSR2, lambda *_: log.error("between two jobs"))

@handler("takes-a-number")
def takes_a_number(number: int):
    pass
"""


async def test_what_libraries_log_arrives_once_with_its_level_and_logger(tmp_path: Path) -> None:
    async with world(module(tmp_path / "logging", LOGGING)) as here:
        child = await here.child()

        heard = Heard()
        await run(child, "logs", heard)
        assert [level for level, _ in heard.logged] == [20, 40, 30, 30, 40]
        assert heard.loggers == ["books.reader", "books.reader", "root", "py.warnings", "books.reader"]
        texts = [text for _, text in heard.logged]
        assert texts[:3] == ["an ordinary line", "an odd %d line", "of the root"]
        assert "FutureWarning: old way" in texts[3]
        assert texts[4].startswith("failed\nTraceback")

        heard = Heard()
        await run(child, "configures", heard)
        assert heard.logged == [(10, "a debug line")]

        heard = Heard()
        await run(child, "prints-its-own", heard)
        assert (heard.logged, heard.lines) == ([], ["printed once"])

        child = await here.child()
        heard = Heard()
        await run(child, "forks", heard)
        assert (heard.logged, heard.lines) == ([], ["ERROR books.reader: of a fork"])


async def test_what_a_library_logs_in_the_middle_of_an_event_is_printed(tmp_path: Path) -> None:
    async with world(module(tmp_path / "logging", LOGGING)) as here:
        heard = Heard()
        async with asyncio.timeout(GENEROUS):
            await run(await here.child(), "finalizes", heard)

    assert [event.type for event in heard.events] == ["page"]
    assert (heard.logged, heard.lines) == ([], ["ERROR books.reader: in the middle"])


async def test_what_a_library_logs_after_a_job_that_did_not_begin_is_printed(tmp_path: Path) -> None:
    async with world(module(tmp_path / "logging", LOGGING)) as here:
        child = await here.child()

        outcome = (await run(child, "takes-a-number", number="x")).outcome
        assert isinstance(outcome, Failed)
        assert outcome.error_type == "InvalidParameters"
        assert child.pid is not None
        os.kill(child.pid, signal.SIGUSR2)
        async with asyncio.timeout(GENEROUS):
            while child.last_line != "ERROR books.reader: between two jobs":
                await asyncio.sleep(0.01)

        heard = Heard()
        await run(child, "forks", heard)
        assert heard.lines == ["ERROR books.reader: of a fork"]


DICE = """
import os, random
from supervisor import handler

OWN = random.Random(42)
FORKS = []
os.register_at_fork(after_in_child=lambda: FORKS.append(os.getpid()))

@handler("dice")
def dice():
    return [OWN.random(), random.random()]
"""


async def test_each_child_draws_numbers_of_its_own(tmp_path: Path) -> None:
    async with world(module(tmp_path / "dice", DICE)) as here:
        first, second = [await result_of(await here.child(), "dice") for _ in range(2)]

    assert not set(first) & set(second)
