"""HTTP endpoints to start and watch runs.  Tested by tests/devserver/test_app.py."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from aiohttp import web

from supervisor.devserver.answers import answer, decode
from supervisor.devserver.dispatch import Dispatch
from supervisor.devserver.errors import Invalid, Unknown
from supervisor.devserver.records import Run
from supervisor.devserver.requests import RunFilter, RunRequest
from supervisor.devserver.store import Store
from supervisor.devserver.views import job_view, run_detail, run_view


class RunViews:
    """One method per endpoint."""

    def __init__(self, store: Store, dispatch: Dispatch) -> None:
        self._store = store
        self._dispatch = dispatch

    def routes(self) -> list[web.RouteDef]:
        runs, run = "/v1/projects/{project}/runs", "/v1/projects/{project}/runs/{run}"
        return [
            web.post(runs, self.start, name="start_run"),
            web.get(runs, self.list, name="list_runs", allow_head=False),
            web.get(run, self.detail, name="get_run", allow_head=False),
            web.get(f"{run}/jobs", self.jobs, name="run_jobs", allow_head=False),
            web.post(f"{run}/cancellations", self.cancel, name="cancel_run"),
        ]

    async def start(self, request: web.Request) -> web.Response:
        body = await request.read()
        _refuse_saved(body)
        run = self._store.start_run(request.match_info["project"], decode(body, RunRequest), time.time())
        self._dispatch.follow_up()
        return answer(self._view(run), 202)

    async def list(self, request: web.Request) -> web.Response:
        chosen = _filter_of(request)
        runs = self._store.runs(request.match_info["project"], chosen)
        page = {"items": [self._view(run) for run in runs[: chosen.limit]], "has_more": len(runs) > chosen.limit}
        if page["has_more"]:
            page["next_cursor"] = str(runs[chosen.limit - 1].number)
        return answer(page)

    async def detail(self, request: web.Request) -> web.Response:
        run = self._run(request)
        return answer(run_detail(run, self._store.jobs(run.id), time.time()))

    async def jobs(self, request: web.Request) -> web.Response:
        jobs = self._store.jobs(self._run(request).id)
        return answer({"items": [job_view(job) for job in jobs]})

    async def cancel(self, request: web.Request) -> web.Response:
        self._store.cancel(request.match_info["project"], request.match_info["run"], time.time())
        self._dispatch.follow_up()
        return web.Response(status=204)

    def _run(self, request: web.Request) -> Run:
        return self._store.run(request.match_info["project"], request.match_info["run"])

    def _view(self, run: Run) -> dict[str, Any]:
        return run_view(run, self._store.open_job(run.id), time.time())


class _Mode(msgspec.Struct):
    mode: str = "inline"


def _refuse_saved(body: bytes) -> None:
    if decode(body, _Mode).mode == "saved":
        raise Unknown("a development server keeps no workflow definitions: send the spec inline")


def _filter_of(request: web.Request) -> RunFilter:
    try:
        # Query strings are text: numbers are read from it.
        return msgspec.convert(dict(request.query), RunFilter, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from error
