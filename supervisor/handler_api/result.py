"""Encoding of a handler's return value to bytes, before base64.  Pure; runs in the child, once for each job."""

from __future__ import annotations

from collections.abc import Coroutine

from supervisor.handler_api.encoding import NotJson, encode_json

_FORGOTTEN = (
    "the handler returned a coroutine without awaiting it: make the handler an `async def` that awaits it; "
    "if it is one already, another decorator hides that"
)


class InvalidResult(Exception):
    """The return value is neither bytes nor JSON; the message names the place, as `value['size'] is nan …`."""


def encode_result(value: object) -> bytes | None:
    """Return bytes as they are, None as no result, anything else as JSON; raise `InvalidResult`."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    try:
        return encode_json(value)
    except NotJson as error:
        if isinstance(value, Coroutine):
            value.close()  # otherwise Python warns of it as well
            raise InvalidResult(_FORGOTTEN) from error
        raise InvalidResult(f"the result is not JSON: {error}") from error
