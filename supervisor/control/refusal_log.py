"""The log of connections that are dropped, refused or malformed: at most one line a minute, with the counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import structlog
from aiohttp.http_exceptions import HttpProcessingError

log = structlog.get_logger("control")

LOG_INTERVAL = 60.0
"""Seconds between two lines."""


class RefusalLog:
    """Counts refusals of one door by reason.

    It is the logger of aiohttp's server as well, which would log each malformed request with a traceback.
    """

    def __init__(self, door: str) -> None:
        self._door = door
        self._counts: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def count(self, reason: str) -> None:
        """Log the first refusal at once, and those that follow within `LOG_INTERVAL` together."""
        self._counts[reason] += 1
        if self._timer is None:
            self._flush()

    def close(self) -> None:
        """Log what was counted since the last line."""
        if self._timer is not None:
            self._flush()
            self._timer.cancel()

    def exception(self, message: str, *args: Any, exc_info: Any = None) -> None:
        """Take what aiohttp logs: a malformed request is the client's fault, anything else is a bug."""
        if isinstance(exc_info, HttpProcessingError):
            self.count("malformed request")
        else:
            log.error("unexpected error at the control server", detail=message % args, exc_info=exc_info or True)

    def debug(self, message: str, *args: Any, **_: Any) -> None:
        """Clients that leave early are not worth a line."""

    def _flush(self) -> None:
        self._timer = None
        if not self._counts:
            return
        counts = {reason.replace(" ", "_"): count for reason, count in self._counts.items()}
        log.warning("connections refused", at=self._door, **counts)
        self._counts.clear()
        self._timer = asyncio.get_running_loop().call_later(LOG_INTERVAL, self._flush)
