"""What all tests share: both event loops, a development server on a free port, short settings."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
import uvloop

from supervisor.devserver.app import DevServer, DevServerSettings
from tests.somebody import handlers_for_somebody

# On a busy machine any example may take long: what hangs is ended by the timeout of its test.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test that awaits runs on both loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_configure() -> None:
    """Undo what a shell does to a job in the background: programs that tests start would ignore Ctrl-C as well."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what only root can do; `pytest -m root` runs nothing else."""
    needs_root = item.get_closest_marker("root")
    if needs_root is not None and os.geteuid() != 0:
        pytest.skip(*needs_root.args)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape lone surrogates: a worker cannot send a report that has one, which would end the whole run."""
    return _escaped((yield))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_escaped, value))
    return value


@pytest.fixture
async def server() -> AsyncIterator[DevServer]:
    """A server that wants a heartbeat every 200 ms, bears with 5 s of silence, and keeps a journal of its calls."""
    async with DevServer(DevServerSettings(heartbeat_interval=0.2, lease_ttl=5, journal=True)) as server:
        yield server


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory."""
    return tmp_path / "state"


@pytest.fixture
def somebodys_handlers() -> Iterator[str]:
    """The folder with the handlers, for a program of another user."""
    with handlers_for_somebody() as folder:
        yield str(folder)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands that run in this process set up logging, and must not do so for the tests that follow."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level
