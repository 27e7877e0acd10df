"""Requests for something that takes a while and is done once at a time, such as a reload.  Runs in the parent.

Whoever asks while it is being done may have changed something that came too late for it, so it is done once more;
for all who ask meanwhile that is once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class CoalescingQueue:
    """`fulfil` is called with the name of who asks first; it returns None, or why it could not be done."""

    def __init__(self, fulfil: Callable[[str], Awaitable[str | None]], *, at_the_end: str) -> None:
        self._fulfil = fulfil
        self._at_the_end = at_the_end
        self._asked = asyncio.Event()
        self._waiting: list[tuple[str, asyncio.Future[str | None]]] = []

    def ask(self, by: str) -> asyncio.Future[str | None]:
        """Have it done; the answer may be waited for, or not."""
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((by, answer))
        self._asked.set()
        return answer

    async def run(self) -> None:
        """Do what is asked for until cancelled; who still waits then is answered with `at_the_end`."""
        answers: list[asyncio.Future[str | None]] = []
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                by = self._waiting[0][0]
                answers = [answer for _, answer in self._waiting]
                self._waiting.clear()
                _tell(answers, await self._fulfil(by))
        finally:
            _tell([*answers, *(answer for _, answer in self._waiting)], self._at_the_end)


def _tell(answers: list[asyncio.Future[str | None]], what: str | None) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_result(what)
