"""Shared code of all endpoints: decode bodies, encode answers and errors, check key and project.

Tested by tests/devserver/test_app.py.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from supervisor.devserver.errors import Invalid, RequestError, Unauthorized, Unknown

Request = TypeVar("Request", bound=msgspec.Struct)

_HANDLE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def answer(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def error_answer(status: int, code: str, message: str) -> web.Response:
    return answer({"error": {"code": code, "message": message}}, status)


async def body_of(request: web.Request, kind: type[Request]) -> Request:
    """Decode the body as a `kind`; answer 400 if that fails."""
    return decode(await request.read(), kind)


def decode(body: bytes, kind: type[Request]) -> Request:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(str(error)) from error
    except RecursionError as error:
        raise Invalid("the body is nested too deeply") from error


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Convert every error to `{"error": {"code", "message"}}` with its status."""
    try:
        return await handler(request)
    except RequestError as error:
        return error_answer(error.status, error.code, str(error))
    except web.HTTPException as error:
        return _http_error_answer(error)


def demand_key(api_key: bytes | None) -> Middleware:
    """Answer 401 without a bearer token, or with a token other than `api_key` if that is set."""

    @web.middleware
    async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        if scheme.lower() != "bearer" or not given:
            raise Unauthorized("the request carries no bearer token")
        if api_key is not None and not hmac.compare_digest(given, api_key):
            raise Unauthorized("the key is not valid")
        return await handler(request)

    return check_key


def demand_project(is_project: Callable[[str], bool]) -> Middleware:
    """Answer 404 unless the project in the path is a valid handle and `is_project`."""

    @web.middleware
    async def check_project(request: web.Request, handler: Handler) -> web.StreamResponse:
        project = request.match_info.get("project")
        if project is not None and not (_HANDLE.fullmatch(project) and is_project(project)):
            raise Unknown(f"there is no project {project!r}")
        return await handler(request)

    return check_project


def _http_error_answer(error: web.HTTPException) -> web.Response:
    code = error.reason.lower().replace(" ", "_")
    response = error_answer(error.status, code, error.text or error.reason)
    if hdrs.ALLOW in error.headers:
        response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return response
