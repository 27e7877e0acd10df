"""A caller of the development server: plain HTTP, no client library of ours."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from supervisor.devserver.app import DevServer, DevServerSettings

PROJECT = "demo"


class Caller:
    """Sends JSON to one project and reads JSON back: `(status, body)`, the body None when empty."""

    def __init__(self, session: aiohttp.ClientSession, project: str = PROJECT) -> None:
        self.session = session
        self.project = project

    async def post(self, path: str, body: Any = None, *, raw: bytes | None = None) -> tuple[int, Any]:
        content = raw if raw is not None else msgspec.json.encode(body if body is not None else {})
        async with self.session.post(f"/v1/projects/{self.project}/{path}", data=io.BytesIO(content)) as response:
            return response.status, await _body_of(response)

    async def get(self, path: str, **query: Any) -> tuple[int, Any]:
        async with self.session.get(f"/v1/projects/{self.project}/{path}", params=query) as response:
            return response.status, await _body_of(response)

    async def claim(self, worker: str = "w", **rest: Any) -> dict[str, Any]:
        status, body = await self.post("jobs/claim", {"worker_id": worker} | rest)
        assert status == 200, (status, body)
        return body

    async def complete(self, job: dict[str, Any], status: str = "completed", **rest: Any) -> tuple[int, Any]:
        fence = {"worker_id": "w", "attempt": job["attempt"]}
        return await self.post(f"jobs/{job['job_id']}/complete", fence | {"status": status} | rest)


async def _body_of(response: aiohttp.ClientResponse) -> Any:
    content = await response.read()
    return msgspec.json.decode(content) if content else None


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[tuple[DevServer, Caller]]:
    """A server on a free port, its journal on, and somebody who calls it."""
    async with (
        DevServer(DevServerSettings(**{"journal": True} | settings)) as server,
        aiohttp.ClientSession(server.url, headers={"Authorization": "Bearer mbx_test"}) as session,
    ):
        yield server, Caller(session)


def spec(*steps: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """A flow of steps of the action `work`, unless they say otherwise."""
    named = [{"name": f"step{number}", "action": "work"} | step for number, step in enumerate(steps or ({},), 1)]
    return {"name": "flow", "steps": named, **rest}


def calls_named(server: DevServer, name: str) -> list[Any]:
    return [call for call in server.calls if call.name == name]
