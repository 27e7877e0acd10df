"""HTTP endpoints for workers: claim, heartbeat, events, complete, job and sessions.

Tested by tests/devserver/test_app.py.
"""

from __future__ import annotations

import logging
import time

import msgspec
from aiohttp import web

from supervisor.devserver.answers import answer, body_of
from supervisor.devserver.dispatch import Dispatch
from supervisor.devserver.errors import TooLarge
from supervisor.devserver.fault_injector import FaultInjector, is_connected
from supervisor.devserver.records import Job
from supervisor.devserver.requests import (
    MAX_PAYLOAD,
    ClaimRequest,
    CompleteRequest,
    EventEntry,
    EventsRequest,
    FenceRequest,
)
from supervisor.devserver.store import Store
from supervisor.devserver.views import claim_view, job_view, session_view

log = logging.getLogger(__name__)


class WorkerViews:
    """One method per endpoint."""

    def __init__(
        self, store: Store, dispatch: Dispatch, fault_injector: FaultInjector, *, heartbeat_interval: float
    ) -> None:
        self._store = store
        self._dispatch = dispatch
        self._fault_injector = fault_injector
        self._heartbeat_interval = heartbeat_interval

    def routes(self) -> list[web.RouteDef]:
        job = "/v1/projects/{project}/jobs/{job}"
        return [
            web.post("/v1/projects/{project}/jobs/claim", self.claim, name="claim"),
            web.post(f"{job}/heartbeat", self.heartbeat, name="heartbeat"),
            web.post(f"{job}/events", self.events, name="events"),
            web.post(f"{job}/complete", self.complete, name="complete"),
            web.get(job, self.job, name="get_job", allow_head=False),
            web.get("/v1/projects/{project}/worker-sessions", self.sessions, name="sessions", allow_head=False),
        ]

    async def claim(self, request: web.Request) -> web.StreamResponse:
        project = request.match_info["project"]
        asked = await body_of(request, ClaimRequest)
        self._store.note_worker(project, asked, time.time())
        job = await self._dispatch.claim(project, asked, lambda: is_connected(request))
        if job is None:
            return web.Response(status=204)
        return await self._hand_over(request, job)

    async def heartbeat(self, request: web.Request) -> web.Response:
        fence = await body_of(request, FenceRequest)
        should_cancel = self._store.heartbeat(*_job_of(request), fence, time.time())
        self._dispatch.follow_up()
        return answer({"ok": True, "directives": {"should_cancel": should_cancel}})

    async def events(self, request: web.Request) -> web.Response:
        batch = await body_of(request, EventsRequest)
        for event in batch.events:
            _check_size(event)
        self._store.publish(*_job_of(request), batch, batch.events, time.time())
        self._dispatch.follow_up()
        return web.Response(status=204)

    async def complete(self, request: web.Request) -> web.Response:
        report = await body_of(request, CompleteRequest)
        self._store.complete(*_job_of(request), report, time.time())
        self._dispatch.follow_up()
        return web.Response(status=204)

    async def job(self, request: web.Request) -> web.Response:
        return answer(job_view(self._store.job(*_job_of(request))))

    async def sessions(self, request: web.Request) -> web.Response:
        sessions = self._store.sessions(request.match_info["project"])
        return answer({"items": [session_view(session, time.time()) for session in sessions]})

    async def _hand_over(self, request: web.Request, job: Job) -> web.StreamResponse:
        run = self._store.run(job.project, job.run_id)
        response = answer(claim_view(job, run, self._heartbeat_interval))
        was_made = False
        try:
            made = await self._fault_injector.hand_over(request, response, job)
            was_made = made.was_made
        except ConnectionError:
            log.info("worker %s hung up before it got job %s", job.claimed_by, job.id)
            return response
        finally:
            if not was_made:
                self._dispatch.give_back(job)
        return made.response


def _job_of(request: web.Request) -> tuple[str, str]:
    return request.match_info["project"], request.match_info["job"]


def _check_size(event: EventEntry) -> None:
    size = len(msgspec.json.encode(event.payload))
    if size > MAX_PAYLOAD:
        raise TooLarge(f"a payload has {size} bytes, {MAX_PAYLOAD} are allowed")
