"""How a stop request interrupts a handler: with real signals, in this process's main thread."""

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import weakref

import pytest

from supervisor.handler_api.interruption import Cancelled, Interruption


@pytest.fixture
def interruption():
    """An interruption wired to SIGTERM, as `child_main` does it."""
    interruption = Interruption()
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: interruption.request())
    yield interruption
    interruption.disarm()
    signal.signal(signal.SIGTERM, before)


def ask_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_request_raises_cancelled_where_the_handler_is(interruption):
    interruption.arm()

    with pytest.raises(Cancelled):
        ask_to_stop()

    assert interruption.requested


def test_a_request_interrupts_a_handler_that_sleeps(interruption):
    interruption.arm()
    asker = threading.Timer(0.05, ask_to_stop)
    asker.start()

    with pytest.raises(Cancelled):
        threading.Event().wait(30)

    asker.join()


def test_cancelled_is_not_swallowed_by_except_exception(interruption):
    def handle():
        with contextlib.suppress(Exception):
            ask_to_stop()

    interruption.arm()

    with pytest.raises(Cancelled):
        handle()


def test_without_a_job_a_request_is_ignored(interruption):
    ask_to_stop()

    assert not interruption.requested


def test_after_the_job_a_request_is_ignored(interruption):
    interruption.arm()
    interruption.disarm()

    ask_to_stop()

    assert not interruption.requested


def test_a_second_request_does_not_break_the_cleanup(interruption):
    steps = []

    def handle():
        try:
            ask_to_stop()
        finally:
            ask_to_stop()
            steps.append("cleaned")

    interruption.arm()

    with pytest.raises(Cancelled):
        handle()

    assert steps == ["cleaned"]


def test_what_is_deferred_is_raised_at_the_outermost_exit(interruption):
    steps = []

    def write():
        with interruption.deferred():
            with interruption.deferred():
                ask_to_stop()
                steps.append("inside")
            steps.append("between")
        steps.append("outside")

    interruption.arm()

    with pytest.raises(Cancelled):
        write()

    assert steps == ["inside", "between"]


def test_a_deferred_request_is_seen_at_once(interruption):
    seen = []

    def write():
        with interruption.deferred():
            ask_to_stop()
            seen.append(interruption.requested)

    interruption.arm()

    with pytest.raises(Cancelled):
        write()

    assert seen == [True]


def test_a_deferred_request_is_forgotten_when_the_job_is_over_first(interruption):
    interruption.arm()

    with interruption.deferred():
        ask_to_stop()
        interruption.disarm()

    assert interruption.requested


def test_an_error_inside_a_deferred_block_gives_way_to_the_request(interruption):
    def write():
        with interruption.deferred():
            ask_to_stop()
            raise BrokenPipeError

    interruption.arm()

    with pytest.raises(Cancelled) as caught:
        write()

    assert isinstance(caught.value.__context__, BrokenPipeError)


def test_deferring_in_another_thread_does_not_defer_in_the_handlers(interruption):
    inside, leave = threading.Event(), threading.Event()

    def write():
        with interruption.deferred():
            inside.set()
            leave.wait(10)

    writer = threading.Thread(target=write)
    writer.start()
    inside.wait(10)
    interruption.arm()

    with pytest.raises(Cancelled):
        ask_to_stop()

    leave.set()
    writer.join()


def test_each_job_can_be_interrupted_anew(interruption):
    for _ in range(3):
        interruption.arm()
        assert not interruption.requested
        with pytest.raises(Cancelled):
            ask_to_stop()
        interruption.disarm()


def test_a_storm_of_requests_raises_once_a_job_and_never_after_disarm(interruption):
    """The pattern of the class's docstring, with signals at arbitrary places."""
    over = threading.Event()
    main_thread = threading.main_thread().ident

    def storm():
        while not over.is_set():
            signal.pthread_kill(main_thread, signal.SIGTERM)

    asker = threading.Thread(target=storm)
    asker.start()
    caught = 0
    try:
        for _ in range(300):
            try:
                try:
                    interruption.arm()
                    with interruption.deferred():
                        sum(range(100))
                    sum(range(10_000))
                finally:
                    interruption.disarm()
            except Cancelled:
                caught += 1
            sum(range(1000))
    finally:
        over.set()
        asker.join()

    assert 0 < caught <= 300


def run_attached(interruption, coroutine):
    """Run a coroutine as `child_main` runs an `async def` handler."""

    async def attached():
        interruption.attach(asyncio.get_running_loop(), asyncio.current_task())
        return await coroutine

    interruption.arm()
    try:
        return asyncio.run(attached())
    finally:
        interruption.disarm()


def test_a_coroutine_that_waits_is_cancelled_by_its_loop(interruption):
    async def wait():
        asyncio.get_running_loop().call_later(0.05, ask_to_stop)
        await asyncio.sleep(30)

    with pytest.raises(asyncio.CancelledError):
        run_attached(interruption, wait())

    assert interruption.requested


def test_a_coroutine_that_computes_is_interrupted_in_its_step(interruption):
    async def compute():
        threading.Timer(0.05, ask_to_stop).start()
        while True:
            pass

    with pytest.raises(Cancelled):
        run_attached(interruption, compute())


def test_a_coroutine_can_await_in_its_cleanup(interruption):
    cleaned = []

    async def handler():
        try:
            ask_to_stop()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(Cancelled):
        run_attached(interruption, handler())

    assert cleaned


def test_when_the_task_is_done_the_loops_end_is_interrupted(interruption):
    async def handler():
        return None

    async def attached():
        interruption.attach(asyncio.get_running_loop(), asyncio.current_task())

    interruption.arm()
    asyncio.run(attached())

    with pytest.raises(Cancelled):
        ask_to_stop()


def test_a_task_is_not_cancelled_after_the_job(interruption):
    async def main():
        task = asyncio.create_task(asyncio.sleep(0.01, "done"))
        interruption.arm()
        interruption.attach(asyncio.get_running_loop(), task)
        ask_to_stop()
        interruption.disarm()
        return await task

    assert asyncio.run(main()) == "done"


# A stop that was lost is raised again


def cleans_up(interruption, work):
    """Run `work` as a job and return whether `Cancelled` came out of it and cleanup ran once."""
    cleaned = []
    try:
        try:
            interruption.arm()
            try:
                work()
            finally:
                cleaned.append(True)
        finally:
            interruption.disarm()
    except Cancelled:
        return cleaned == [True]
    return False


class AsksWhenDeleted:
    def __del__(self):
        ask_to_stop()


def test_a_stop_that_was_lost_in_a_finalizer_is_raised_where_that_was_called(interruption):
    steps = []

    def handle():
        for step in range(3):
            AsksWhenDeleted()
            steps.append(step)

    assert cleans_up(interruption, handle)
    assert steps == []


@pytest.mark.parametrize("kind", ["ctypes", "weakref", "gc"])
def test_a_stop_that_was_lost_in_a_callback_is_raised_after_it(interruption, kind):
    def handle():
        CALLBACKS[kind]()
        threading.Event().wait(30)

    assert cleans_up(interruption, handle)


def call_back_from_c():
    ctypes.CFUNCTYPE(None)(ask_to_stop)()


def call_back_from_weakref():
    thing = AsksNothing()
    _reference = weakref.ref(thing, lambda _: ask_to_stop())
    del thing


class AsksNothing:
    pass


def call_back_from_gc():
    def ask(*_):
        gc.callbacks.remove(ask)
        ask_to_stop()

    gc.callbacks.append(ask)
    gc.collect()


CALLBACKS = {"ctypes": call_back_from_c, "weakref": call_back_from_weakref, "gc": call_back_from_gc}


def test_a_call_of_c_is_left_soon_whose_callbacks_lose_the_stop(interruption, capsys):
    calls, whole = [], []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def compare(_a, _b):
        calls.append(1)
        if len(calls) == 3:
            ask_to_stop()
        whole.append(1)
        return 0

    def handle():
        ctypes.CDLL(None).qsort((ctypes.c_int * 1000)(), ctypes.c_size_t(1000), ctypes.c_size_t(4), compare)

    assert cleans_up(interruption, handle)
    assert len(whole) == 2 or sys.version_info >= (3, 12)  # where tracing begins anew later, or not at all
    assert capsys.readouterr().err == ""


def test_a_stop_that_was_lost_is_not_printed(interruption, capsys):
    assert cleans_up(interruption, lambda: AsksWhenDeleted() and sum(range(10)))

    assert capsys.readouterr().err == ""


def test_what_else_is_dropped_goes_to_the_hook_before_ours(interruption, monkeypatch):
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    interruption.arm()

    class Fails:
        def __del__(self):
            raise ValueError

    Fails()
    interruption.disarm()

    assert [args.exc_type for args in dropped] == [ValueError]
    assert sys.unraisablehook == dropped.append


def test_a_loop_that_swallows_everything_is_left_through_its_second_stop(interruption, monkeypatch):
    monkeypatch.setattr("supervisor.handler_api.interruption.RAISE_AGAIN_AFTER", 0.01)
    swallowed = []

    def handle():
        while True:
            try:
                if not swallowed:
                    ask_to_stop_soon()
                threading.Event().wait(30)
            except BaseException as error:
                swallowed.append(type(error))

    assert cleans_up(interruption, handle)
    assert swallowed in ([Cancelled, Cancelled], [Cancelled])  # the second may come between two waits


def ask_to_stop_soon():
    threading.Timer(0.01, ask_to_stop).start()


def test_a_handler_that_catches_the_stop_and_returns_is_let_be(interruption):
    def handle():
        with contextlib.suppress(Cancelled):
            ask_to_stop()
        return "rescued"

    interruption.arm()

    assert handle() == "rescued"


@pytest.mark.parametrize("way", ["finally", "except", "with"])
def test_cleanup_is_never_cut_however_long_it_takes(interruption, monkeypatch, way):
    monkeypatch.setattr("supervisor.handler_api.interruption.RAISE_AGAIN_AFTER", 0.01)
    steps = []

    def clean_up():
        with contextlib.suppress(ValueError):
            raise ValueError  # which is handled while the stop is
        for step in range(5):
            ask_to_stop()
            threading.Event().wait(0.01)
            steps.append(step)

    assert cleans_up(interruption, lambda: WAYS[way](ask_to_stop, clean_up))
    assert steps == [0, 1, 2, 3, 4]


def by_finally(work, clean_up):
    try:
        work()
    finally:
        clean_up()


def by_except(work, clean_up):
    try:
        work()
    except BaseException:
        clean_up()
        raise


def by_with(work, clean_up):
    with contextlib.ExitStack() as stack:
        stack.callback(clean_up)
        work()


WAYS = {"finally": by_finally, "except": by_except, "with": by_with}


def test_after_the_job_a_lost_stop_is_not_raised_again(interruption, monkeypatch):
    monkeypatch.setattr("supervisor.handler_api.interruption.RAISE_AGAIN_AFTER", 3600.0)
    before = set(threading.enumerate())
    interruption.arm()
    with contextlib.suppress(Cancelled):
        ask_to_stop()
    reminders = set(threading.enumerate()) - before
    assert reminders

    interruption.disarm()

    for reminder in reminders:  # it ends now, and not when it is due
        reminder.join(20)
        assert not reminder.is_alive()
    assert sys.gettrace() is None


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python 3.12 traces no coroutine that waits")
def test_a_coroutine_that_swallows_its_cancel_twice_is_left(interruption, monkeypatch):
    monkeypatch.setattr("supervisor.handler_api.interruption.RAISE_AGAIN_AFTER", 0.01)
    swallowed = []

    async def handler():
        asyncio.get_running_loop().call_later(0.01, ask_to_stop)
        while True:
            try:
                await asyncio.sleep(30)
            except BaseException as error:
                swallowed.append(type(error))

    with pytest.raises(Cancelled):
        run_attached(interruption, interruption.watched(handler()))

    assert swallowed == [asyncio.CancelledError, asyncio.CancelledError]


def test_a_coroutine_that_swallows_its_cancel_is_cancelled_again(interruption, monkeypatch):
    monkeypatch.setattr("supervisor.handler_api.interruption.RAISE_AGAIN_AFTER", 0.01)

    async def handler():
        asyncio.get_running_loop().call_later(0.01, ask_to_stop)
        with contextlib.suppress(BaseException):
            await asyncio.sleep(30)
        await asyncio.sleep(30)

    with pytest.raises(asyncio.CancelledError):
        run_attached(interruption, interruption.watched(handler()))


def test_a_coroutine_can_wait_in_its_cleanup_however_long_it_takes(interruption, monkeypatch):
    monkeypatch.setattr("supervisor.handler_api.interruption.RAISE_AGAIN_AFTER", 0.01)
    cleaned = []

    async def handler():
        asyncio.get_running_loop().call_later(0.01, ask_to_stop)
        try:
            await asyncio.sleep(30)
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.sleep(30), 0.02)  # cancels what is inside
            await asyncio.sleep(0.05)
            cleaned.append(True)

    with pytest.raises(asyncio.CancelledError):
        run_attached(interruption, interruption.watched(handler()))

    assert cleaned == [True]
