"""What a handler's return value is on the wire, before base64.  Pure; in the child, once for each job."""

from __future__ import annotations

from collections.abc import Coroutine

from supervisor.handler_api.encoding import NotJson, encode_json

_FORGOTTEN = (
    "the handler returned a coroutine without awaiting it: make the handler an `async def` that awaits it; "
    "if it is one, another decorator hides that"
)


class InvalidResult(Exception):
    """The handler returned what is neither bytes nor JSON; one sentence with the place, as `value['size'] is nan …`."""


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
            value.close()  # or Python would warn of it as well
            raise InvalidResult(_FORGOTTEN) from error
        raise InvalidResult(f"the result is not JSON: {error}") from error
