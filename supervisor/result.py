"""What a handler's return value is on the wire, before base64.  Pure; in the child, once for each job."""

from __future__ import annotations

from supervisor.encoding import NotJson, encode_json


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
        raise InvalidResult(f"the result is not JSON: {error}") from error
