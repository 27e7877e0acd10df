"""Injects the faults of a script into workers' calls.  `faults` decides when, `fault_responses` changes the answers.

A claim is examined twice: on arrival, like any other call, and when a job is handed out, because only then is its job
known.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from supervisor.devserver.dispatch import Dispatch
from supervisor.devserver.errors import Unknown
from supervisor.devserver.fault_responses import hang_up, refusal, reworded, send_badly
from supervisor.devserver.faults import (
    CALLS,
    AnyFault,
    Cancel,
    Delay,
    DuplicateClaim,
    ExpireLease,
    FaultScript,
    Hang,
    HangUp,
    Occasion,
    Schedule,
    Status,
)
from supervisor.devserver.records import Job
from supervisor.devserver.store import Store

log = logging.getLogger(__name__)

# The fault chosen on arrival of a call, for a claim that later hands out a job.
_early: ContextVar[AnyFault | None] = ContextVar("early", default=None)


@dataclass(frozen=True, slots=True)
class HandOver:
    """Result of sending a job; `was_made` is False only if the worker certainly did not get it."""

    response: web.StreamResponse
    was_made: bool


class FaultInjector:
    """Middleware between clients and endpoints; without faults it passes all calls on."""

    def __init__(self, script: FaultScript | None, store: Store, dispatch: Dispatch) -> None:
        self._schedule = Schedule(script or FaultScript())
        self._is_idle = script is None or not script.faults
        self._store = store
        self._dispatch = dispatch
        self._closing = asyncio.Event()
        self._claimed: dict[str, int] = {}
        self._duplicates: deque[web.Response] = deque()
        self._injected: Counter[str] = Counter()

    @property
    def injected(self) -> Mapping[str, int]:
        """Number of injected faults by kind."""
        return dict(self._injected)

    def close(self) -> None:
        """End all calls that a fault keeps waiting."""
        self._closing.set()

    @web.middleware
    async def interfere(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Process a call with the fault that the script requires."""
        call = request.match_info.route.name
        if self._is_idle or call not in CALLS:
            return await handler(request)
        await request.read()  # a call that hangs or is refused has arrived completely
        job = self._job_of(request)
        fault = self._strike(call, job)
        _early.set(fault)
        response = await self._before(fault, request, job) or self._duplicate(call) or await handler(request)
        # An answer that is already sent contains a job, and `hand_over` has handled its faults.
        if not isinstance(response, web.Response) or response.prepared:
            return response
        response = reworded(fault, response)
        is_sent = await send_badly(fault, request, response)
        return _placeholder(response) if is_sent else response

    async def hand_over(self, request: web.Request, response: web.Response, job: Job) -> HandOver:
        """Send the answer to a claim here instead of in aiohttp, to detect a failed write.

        Raises `ConnectionError` when the write fails.
        """
        early, late = _early.get(), self._strike("claim", job)
        instead = await self._before(late, request, job)
        if instead is not None:
            return HandOver(instead, was_made=False)
        if isinstance(late, DuplicateClaim):
            self._duplicates.append(web.Response(body=response.body, content_type=response.content_type))
        response = reworded(late, reworded(early, response))
        for fault in (early, late):
            if await send_badly(fault, request, response):
                return HandOver(_placeholder(response), was_made=True)
        await response.prepare(request)
        await response.write_eof()
        # The kernel may refuse the bytes without an error for the writer: then the transport is closing.
        return HandOver(response, was_made=is_connected(request))

    async def _before(self, fault: AnyFault | None, request: web.Request, job: Job | None) -> web.Response | None:
        """Apply a fault before the call; return an answer if the call must not be processed."""
        match fault:
            case Status():
                return refusal(fault)
            case HangUp():
                return hang_up(request)
            case Hang():
                await self._closing.wait()
                return hang_up(request)
            case Delay(seconds=seconds):
                await self._pause(seconds)
            case ExpireLease() if job is not None:
                self._store.let_run_out(job.id, time.time())
                self._dispatch.follow_up()
            case Cancel() if job is not None:
                self._store.cancel(job.project, job.run_id, time.time())
                self._dispatch.follow_up()
        return None

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _duplicate(self, call: str) -> web.Response | None:
        """Return the answer of an earlier claim if this claim must get it again."""
        return self._duplicates.popleft() if call == "claim" and self._duplicates else None

    def _strike(self, call: str, job: Job | None) -> AnyFault | None:
        fault = self._schedule.strike(self._occasion(call, job))
        if fault is not None:
            self._injected[fault.kind] += 1
            log.info("fault: %s on %s%s", fault.kind, call, f" of job {job.id}, attempt {job.attempt}" if job else "")
        return fault

    def _occasion(self, call: str, job: Job | None) -> Occasion:
        if job is None or self._is_idle:
            return Occasion(call)
        if call == "claim":
            self._claimed.setdefault(job.id, len(self._claimed) + 1)
        return Occasion(call, job.id, job.action, self._claimed.get(job.id))

    def _job_of(self, request: web.Request) -> Job | None:
        try:
            return self._store.job(request.match_info["project"], request.match_info["job"])
        except (KeyError, Unknown):
            return None


def is_connected(request: web.Request) -> bool:
    """True if the connection to the client seems open."""
    return request.transport is not None and not request.transport.is_closing()


def _placeholder(response: web.Response) -> web.Response:
    """Return an answer only for aiohttp and the call log, after the real one was sent and the connection closed."""
    return web.Response(status=response.status)
