"""Errors of requests.  `answers.answer_errors` catches them and answers with their status.

RequestError
├── Invalid              400
│   └── DeadReference    400   an unresolved `${...}`; in a running workflow it fails the run
├── Unauthorized         401
├── Unknown              404   no such project, run, job or endpoint
├── FenceRefused         409   the call is not about the current attempt
└── TooLarge             413
"""

from __future__ import annotations

from typing import ClassVar


class RequestError(Exception):
    """A request that is answered with an error."""

    status: ClassVar[int]
    code: ClassVar[str]


class Invalid(RequestError):
    status = 400
    code = "invalid_request"


class DeadReference(Invalid):
    pass


class Unauthorized(RequestError):
    status = 401
    code = "unauthorized"


class Unknown(RequestError):
    status = 404
    code = "not_found"


class FenceRefused(RequestError):
    status = 409
    code = "fence_refused"


class TooLarge(RequestError):
    status = 413
    code = "payload_too_large"
