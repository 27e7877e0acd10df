"""What a handler can know and say through its context."""

import dataclasses
import datetime
import logging
import multiprocessing
import os
import threading
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest

from supervisor import Cancelled
from tests.handler_world import World
from tests.harness import GENEROUS


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_context_knows_its_job(world):
    context = world.context(parameters={"a": 1}, attempt=3, action="resize")

    assert (context.job_id, context.run_id, context.workflow_name, context.step_name) == (
        "job_1",
        "run_1",
        "flow",
        "step",
    )
    assert (context.action, context.attempt, context.queue, context.worker_id) == ("resize", 3, "default", "worker_1")
    assert context.parameters == {"a": 1}
    assert repr(context) == "<Context resize job_1#3>"


# Events


@dataclasses.dataclass
class Page:
    number: int


class Sheet(msgspec.Struct):
    number: int


@pytest.mark.parametrize("payload", [{"number": 1}, Page(1), Sheet(1)])
def test_an_event_takes_whatever_is_an_object_in_json(world, payload):
    world.context().emit("page", payload)

    assert world.events == [("page", {"number": 1})]


@pytest.mark.parametrize("type_", ["", "a" * 65, "a b", "ä", "mobius.run", "mobius.", "a\n", None, 3])
def test_an_event_type_that_the_server_refuses_is_refused_at_the_call(world, type_):
    with pytest.raises(ValueError, match="the event type"):
        world.context().emit(type_, {})

    assert world.told == []


@pytest.mark.parametrize("type_", ["a", "a" * 64, "a.b-c_D9", "mobius", "mobiusx.y"])
def test_an_event_type_that_the_server_takes_is_taken(world, type_):
    world.context().emit(type_, {})

    assert world.events == [(type_, {})]


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        ([1], "not a JSON object but of type list"),
        (None, "not a JSON object but of type NoneType"),
        ("{}", "not a JSON object but of type str"),
        (datetime.date(2026, 4, 1), "not a JSON object but of type datetime.date"),
        ({"a": float("nan")}, r"value\['a'\] is nan"),
        ({"a": [float("inf")]}, r"value\['a'\]\[0\] is inf"),
        ({"a": object()}, r"value\['a'\] is of type object"),
    ],
)
def test_a_payload_that_is_no_json_object_is_refused_at_the_call(world, payload, fault):
    with pytest.raises(ValueError, match=fault):
        world.context().emit("page", payload)

    assert world.told == []


def test_a_payload_is_measured_as_compact_utf_8(world):
    context = world.context()

    context.emit("page", {"a": "x" * (16 * 1024 - len('{"a":""}'))})
    with pytest.raises(ValueError, match="16385 bytes as JSON; 16384 are allowed"):
        context.emit("page", {"a": "x" * (16 * 1024 - len('{"a":""}') + 1)})
    with pytest.raises(ValueError, match="bytes as JSON"):
        context.emit("page", {"a": "ä" * (8 * 1024)})

    assert len(world.told) == 1


# Progress


def test_progress_leaves_out_what_is_not_known(world):
    context = world.context()

    context.progress(1)
    context.progress(0.5, 2, "half way")

    assert world.progress == [{"done": 1}, {"done": 0.5, "total": 2, "message": "half way"}]


def test_tracking_yields_the_items_and_tells_the_first_and_the_last(world):
    items = list(world.context().track("abc"))

    assert items == ["a", "b", "c"]
    assert world.progress == [{"done": 0, "total": 3}, {"done": 3, "total": 3}]


def test_tracking_tells_at_most_twice_a_second(world):
    for _ in world.context().track(range(100)):
        world.now += 0.125

    assert len(world.progress) == 1 + 100 * 0.125 / 0.5
    assert world.progress[1] == {"done": 4, "total": 100}
    assert world.progress[-1] == {"done": 100, "total": 100}


def test_tracking_an_iterator_needs_no_total(world):
    list(world.context().track(iter("ab")))

    assert world.progress == [{"done": 0}, {"done": 2}]


def test_tracking_takes_a_total_for_what_has_no_length(world):
    list(world.context().track(iter("ab"), total=2))

    assert world.progress == [{"done": 0, "total": 2}, {"done": 2, "total": 2}]


def test_tracking_nothing_tells_once(world):
    assert list(world.context().track([])) == []

    assert world.progress == [{"done": 0, "total": 0}]


# Cancelling


def test_without_a_request_nothing_is_cancelled(world):
    context = world.context()

    context.check_cancelled()

    assert not context.cancelled


def test_a_request_is_seen_and_raised_in_any_thread(world):
    context = world.context()
    world.interruption.requested = True
    raised = []

    def work():
        try:
            context.check_cancelled()
        except Cancelled as cancelled:
            raised.append(cancelled)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert context.cancelled
    assert len(raised) == 1


def test_an_event_is_told_whole_before_the_job_is_cancelled(world):
    context = world.context()
    world.interruption.arm()
    whole = []

    def tell_slowly(message):
        world.interruption.request()
        whole.append(message)

    context._channel._send = tell_slowly  # stands for a signal in the middle of the write
    with pytest.raises(Cancelled):
        context.emit("page", {})

    assert len(whole) == 1


# Log


def test_log_lines_go_to_the_parent_with_their_level(world):
    log = world.context().log

    log.debug("page %d of %d", 1, 2)
    log.error("no")

    assert world.logged == [(logging.DEBUG, "page 1 of 2"), (logging.ERROR, "no")]


def test_a_logged_exception_brings_its_traceback(world):
    try:
        {}["page 3"]
    except LookupError:
        world.context().log.exception("failed")

    [(level, text)] = world.logged
    assert level == logging.ERROR
    assert text.startswith("failed\nTraceback")
    assert text.endswith("KeyError: 'page 3'")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("page %d", "x"), "page %d ('x',)"),
        (("page", 1), "page (1,)"),
        (("lone \ud800",), "lone \\ud800"),
        (("x" * 20_000,), "x" * 16_384 + "… (20000 characters)"),
    ],
)
def test_whatever_is_logged_the_job_goes_on(world, arguments, text):
    world.context().log.info(*arguments)

    assert world.logged == [(logging.INFO, text)]


def test_the_handlers_of_the_log_have_a_lock_that_logging_can_enter_and_nobody_waits_for(world):
    handlers = world.context().log.handlers

    assert handlers
    for handler in handlers:
        with handler.lock:  # since Python 3.13 `Handler.handle` enters it
            other = threading.Thread(target=handler.acquire, daemon=True)
            other.start()
            other.join(GENEROUS)
            assert not other.is_alive()


def test_the_log_is_no_part_of_loggings_tree(world, caplog):
    context = world.context()

    context.log.info("here")

    assert caplog.records == []
    assert context.log.name not in logging.Logger.manager.loggerDict


# The working directory


def test_the_working_directory_is_made_on_first_use(world):
    context = world.context()

    assert not (world.folder / "work").exists()
    assert context.workdir == world.folder / "work" / "job_1"
    assert context.workdir.is_dir()
    assert context.workdir.stat().st_mode & 0o777 == 0o700


# The end


def test_after_the_end_nothing_is_said_any_more(world, capfd):
    context = world.context()
    context._channel.close()

    with pytest.raises(RuntimeError, match="job job_1 is over"):
        context.emit("page", {})
    with pytest.raises(RuntimeError, match="job job_1 is over"):
        context.progress(1)
    context.log.info("ignored")

    assert world.told == []
    assert capfd.readouterr().err == ""


def test_the_end_waits_for_the_message_that_another_thread_is_sending(world):
    context = world.context()
    sending, go_on = threading.Event(), threading.Event()

    def tell(message):
        sending.set()
        go_on.wait(10)
        world.told.append(message)

    context._channel._send = tell  # stands for a full pipe
    thread = threading.Thread(target=context.emit, args=("page", {}))
    thread.start()
    sending.wait(10)
    threading.Timer(0.05, go_on.set).start()

    context._channel.close()

    assert len(world.told) == 1
    thread.join()


def emit_in_a_fork(context, answers):
    context.log.warning("page %d is odd", 3)
    try:
        context.emit("page", {})
    except RuntimeError as error:
        answers.put(str(error))


def test_a_forked_process_cannot_speak_in_the_jobs_name_but_its_log_is_printed(world, capfd):
    """Its frames would land inside the job's own."""
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    process = fork.Process(target=emit_in_a_fork, args=(world.context(), answers))
    process.start()

    answer = answers.get()

    process.join()
    assert "not one it forked" in answer
    assert world.told == []
    assert capfd.readouterr().err == "WARNING: page 3 is odd\n"


def log_without_an_output(context):
    os.close(2)
    context.log.info("lost")


def test_a_forked_process_may_log_with_its_output_closed(world):
    process = multiprocessing.get_context("fork").Process(target=log_without_an_output, args=(world.context(),))
    process.start()

    process.join()

    assert process.exitcode == 0


# Numbers of libraries


class Scalar:
    """As a number of NumPy or PyTorch: no subclass of Python's, without a dimension."""

    ndim = 0

    def __init__(self, number):
        self._number = number

    def item(self):
        return self._number


class Index:
    def __index__(self):
        return 3


@pytest.mark.parametrize(
    ("done", "total", "told"),
    [
        (Index(), Index(), {"done": 3, "total": 3}),
        (Decimal("1.5"), Fraction(5, 2), {"done": 1.5, "total": 2.5}),
        (True, 2, {"done": 1, "total": 2}),
        (1, float("inf"), {"done": 1}),
        (1, float("nan"), {"done": 1}),
        (float("nan"), 8, {"total": 8}),
        (10**30, 10**400, {"done": 1e30}),
    ],
)
def test_progress_takes_what_is_a_number_to_python_and_leaves_out_what_is_not_finite(world, done, total, told):
    world.context().progress(done, total)

    assert world.progress == [told]


@pytest.mark.parametrize("done", ["3", b"3", [], object()])
def test_progress_refuses_what_is_no_number_and_names_it(world, done):
    with pytest.raises(TypeError, match="done is not a number"):
        world.context().progress(done)


def test_a_message_of_progress_may_be_any_text_of_any_length(world):
    world.context().progress(1, message="caf\udce9 " + "x" * 100_000)

    [said] = world.progress
    assert said["message"].startswith("caf\\udce9 xxx")
    assert len(said["message"]) < 2100


def test_tracking_takes_what_has_no_usable_length(world):
    class Endless:
        def __len__(self):
            raise TypeError("an iterable data set has none")

        def __iter__(self):
            return iter("ab")

    assert list(world.context().track(Endless())) == ["a", "b"]
    assert next(world.context().track(range(10**30))) == 0
    assert world.progress == [{"done": 0}, {"done": 2}, {"done": 0}]


def test_a_payload_holds_single_numbers_of_libraries_as_numbers(world):
    world.context().emit("figures", {"a": Scalar(1), "b": Scalar(0.5), "c": Scalar(True), "d": Fraction(1, 4)})

    assert world.events == [("figures", {"a": 1, "b": 0.5, "c": True, "d": 0.25})]


def test_a_single_number_of_a_library_that_is_not_finite_is_refused_with_its_place(world):
    with pytest.raises(ValueError, match=r"value\['loss'\] is"):
        world.context().emit("figures", {"loss": Scalar(float("nan"))})
