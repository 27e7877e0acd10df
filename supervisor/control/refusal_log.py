"""The log of dropped, refused and malformed connections: at most one line a minute, with counts."""

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
    """Counts the refusals of one endpoint by reason.

    Also the logger of aiohttp's server, which would otherwise log each malformed request with a traceback.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._counts: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def count(self, reason: str) -> None:
        """Log the first refusal at once; collect those of the next `LOG_INTERVAL` into one line."""
        self._counts[reason] += 1
        if self._timer is None:
            self._flush()

    def close(self) -> None:
        """Log the counts since the last line."""
        if self._timer is not None:
            self._flush()
            self._timer.cancel()

    def exception(self, message: str, *args: Any, exc_info: Any = None) -> None:
        """Count a malformed request, which is the client's fault; log any other exception as a bug."""
        if isinstance(exc_info, HttpProcessingError):
            self.count("malformed request")
        else:
            log.error("unexpected error at the control server", detail=message % args, exc_info=exc_info or True)

    def debug(self, message: str, *args: Any, **_: Any) -> None:
        """Ignore clients that disconnect early."""

    def _flush(self) -> None:
        self._timer = None
        if not self._counts:
            return
        counts = {reason.replace(" ", "_"): count for reason, count in self._counts.items()}
        log.warning("connections refused", at=self._endpoint, **counts)
        self._counts.clear()
        self._timer = asyncio.get_running_loop().call_later(LOG_INTERVAL, self._flush)
