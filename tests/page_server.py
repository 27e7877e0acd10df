"""A server of the page and nothing else, for tests in a browser: it shows the `Status` that it is given."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from aiohttp import web

from supervisor.page.document import CONTENT_SECURITY_POLICY, Access, render, render_body
from supervisor.status import Status

STACK = 'File "handlers/<b>bold</b>.py", line 3 in work\n'


class PageServer:
    """Serves in a thread while its block runs, sends the page's body every 100 ms, and keeps what was asked for."""

    def __init__(
        self, status: Status, access: Access = Access.STEER, *, token: str | None = None, port: int = 0
    ) -> None:
        self.status = status
        self.asked: list[str] = []
        self.refusal: str | None = None
        self.port = port
        self._access = access
        self._token = token
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{self.port}/"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> int:
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/events", self._events),
                web.get("/jobs/{job_id}/stack", self._steered),
                web.post("/jobs/{job_id}/cancel", self._steered),
                web.post("/{deed:pause|resume}", self._steered),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return int(self._runner.addresses[0][1])

    async def _page(self, _: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        return web.Response(text=render(self.status, self._access), content_type="text/html", headers=headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionError):
            await response.write(b"retry: 200\n\n")
            while True:
                data = render_body(self.status).replace("\n", "\ndata: ")
                await response.write(f"event: page\ndata: {data}\n\n".encode())
                await asyncio.sleep(0.1)
        return response

    async def _steered(self, request: web.Request) -> web.Response:
        if self._token is not None and request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.json_response({"error": "the token is not the right one"}, status=401)
        if self.refusal is not None:
            return web.json_response({"error": self.refusal}, status=409)
        self.asked.append(f"{request.method} {request.raw_path}")
        return web.json_response({"stack": STACK})
