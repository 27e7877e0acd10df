from __future__ import annotations

import io
import json
import logging
import os
import pty
import subprocess
import sys

import pytest
import structlog

from supervisor.logs import log
from supervisor.logs.redaction import Mask


class Log:
    """Logging set up on a stream that can be read."""

    def __init__(self, level: str = "info", line_format: str = "json", secrets: tuple[str, ...] = ()) -> None:
        self.stream = io.StringIO()
        log.configure(level, line_format, mask=Mask(secrets), stream=self.stream)
        self.logger = structlog.get_logger("test")

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text.splitlines()]


def test_a_json_line_begins_with_time_level_event_and_logger() -> None:
    logs = Log()

    logs.logger.bind(job_id="job_1").info("completed in %.1f s", 1.25)

    [line] = logs.lines
    assert list(line) == ["ts", "level", "event", "logger", "job_id"]
    assert str(line["ts"]).endswith("Z")
    assert (line["level"], line["event"], line["logger"]) == ("info", "completed in 1.2 s", "test")


def test_levels_below_the_threshold_say_nothing() -> None:
    logs = Log("warning")

    logs.logger.info("no")
    logs.logger.warning("yes")

    assert [line["event"] for line in logs.lines] == ["yes"]


@pytest.mark.parametrize(("set_to", "tells_all"), [("1", True), ("", False), (None, False)])
def test_a_service_that_is_started_to_be_debugged_tells_all(
    set_to: str | None, tells_all: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEBUG_INVOCATION", raising=False)
    if set_to is not None:
        monkeypatch.setenv("DEBUG_INVOCATION", set_to)

    logs = Log()
    logs.logger.debug("claimed")

    assert ("claimed" in logs.text) == tells_all
    assert log.is_enabled("debug") == tells_all


@pytest.mark.parametrize("line_format", ["json", "console", "journal"])
def test_a_key_shows_nowhere(line_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "choose_format", lambda *_: line_format)
    logs = Log(secrets=("acme/plainkey",))
    leaks = {"text": "Bearer acme/plainkey", "nested": [{"acme/plainkey": b"mbc_inbytes"}], "object": KeyError("mbx_o")}

    logs.logger.info("sent %s", "mbx_inevent", **leaks)
    try:
        raise ValueError("acme/plainkey and mbx_intraceback")
    except ValueError:
        logs.logger.exception("failed")

    assert "plainkey" not in logs.text
    assert "mbx_" not in logs.text
    assert "mbc_" not in logs.text
    assert "ValueError" in logs.text


def test_a_key_too_short_to_be_a_secret_does_not_blacken_the_log() -> None:
    logs = Log(secrets=("dev", ""))

    logs.logger.info("device ready")

    assert logs.lines[0]["event"] == "device ready"


@pytest.mark.parametrize("line_format", ["json", "console", "journal"])
def test_job_data_cannot_draw_on_the_terminal_or_forge_a_line(
    line_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "choose_format", lambda *_: line_format)
    logs = Log()

    logs.logger.info("a\x1b[2Jb", line="x\n<0>forged\r\x9b31m \u202e\ud800", **{"k\ney": 1})

    assert not set(logs.text.removesuffix("\n")) & set("\x1b\n\r\x9b\u202e\ud800")


def test_values_that_are_not_json_are_shown_as_text() -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no")

    circle: list[object] = []
    circle.append(circle)
    logs = Log()

    logs.logger.info("odd", nan=float("nan"), rude=Rude(), circle=circle, pair=(1, {2}), huge="x" * 100_000)

    [line] = logs.lines
    assert line["nan"] == "nan"
    assert line["rude"] == "<Rude that cannot be shown: RuntimeError>"
    assert line["pair"] == [1, [2]]
    assert len(str(line["huge"])) < 20_000


def test_what_libraries_log_takes_the_same_way() -> None:
    logs = Log()

    logging.getLogger("aiohttp.client").warning("lost %s", "mbx_connection")
    logging.getLogger("odd").log(35, "wrong %d", "number")
    logging.getLogger("odd").log(99, "very odd")
    logging.getLogger("quiet").debug("no")

    assert [(line["logger"], line["level"], line["event"]) for line in logs.lines] == [
        ("aiohttp.client", "warning", "lost ***"),
        ("odd", "warning", "wrong %d"),
        ("odd", "critical", "very odd"),
    ]


def test_a_journal_line_has_its_priority_and_so_has_each_line_of_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "choose_format", lambda *_: "journal")
    logs = Log()

    logs.logger.info("claimed", job_id="job_1", text='with "quotes"')
    try:
        raise ValueError("x")
    except ValueError:
        logs.logger.exception("failed")

    first, *traceback = logs.text.splitlines()
    assert first == '<6>claimed job_id=job_1 text="with \\"quotes\\"" logger=test'
    assert len(traceback) > 2
    assert all(line.startswith("<3>") for line in traceback)


def test_auto_means_console_on_a_terminal_priorities_in_the_journal_and_json_elsewhere() -> None:
    controller, terminal = pty.openpty()
    reading, writing = os.pipe()
    status = os.fstat(writing)
    journal = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    with open(terminal, "w") as console, open(writing, "w") as pipe:
        chosen = [
            log.choose_format("auto", console, journal),
            log.choose_format("auto", pipe, journal),
            log.choose_format("auto", pipe, {}),
            log.choose_format("auto", io.StringIO(), journal),
            log.choose_format("json", console, {}),
        ]
    os.close(controller)
    os.close(reading)

    assert chosen == ["console", "journal", "json", "json", "json"]


@pytest.mark.parametrize(("environment", "is_colored"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_unless_it_asks_for_none(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, *, is_colored: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    logs = Log(line_format="console")
    monkeypatch.setattr(logs.stream, "isatty", lambda: True)

    log.configure("info", "console", stream=logs.stream)
    logs.logger.info("hello")

    assert ("\x1b[" in logs.text) == is_colored


@pytest.mark.parametrize("device", ["/dev/full", "closed pipe", "closed stream", "no stream"])
def test_logging_goes_on_when_its_stream_is_gone(device: str) -> None:
    script = "from supervisor.logs import log; import structlog, sys, os\n"
    if device == "closed pipe":
        script += "r, w = os.pipe(); os.dup2(w, 2); os.close(r)\n"
    elif device == "closed stream":
        script += "sys.stderr.close()\n"
    elif device == "no stream":
        script += "sys.stderr = None  # as Python does when descriptor 2 is closed at its start\n"
    script += (
        "log.configure('info', 'auto')\n"
        "for _ in range(9): structlog.get_logger('x').info('y' * 5000)\n"
        "print('alive', flush=True); os._exit(0)\n"
    )
    target = open(device, "w") if device.startswith("/") else subprocess.DEVNULL  # noqa: SIM115 - closed by the test

    ended = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=target, text=True, check=False
    )
    if not isinstance(target, int):
        target.close()

    assert (ended.returncode, ended.stdout) == (0, "alive\n")


def test_the_names_that_a_server_gives_are_cut() -> None:
    logs = Log(secrets=("mbx_secret",))
    endless = "x" * 195 + "mbx_secret" + "x" * 100_000

    logs.logger.bind(job_id=endless, run_id=endless, action=endless, pid=7).info("running")

    [line] = logs.lines
    assert line["job_id"] == line["run_id"] == line["action"] == "x" * 195 + "***x…"
