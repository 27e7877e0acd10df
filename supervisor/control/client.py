"""The commands' client of the control socket.  Uses only the standard library, because commands must start fast."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

from supervisor.control.socket_path import NotRunning, connect, too_long
from supervisor.settings.resolution import ConfigError

CALL_TIMEOUT = 10.0
"""Seconds to wait for a response."""


class ControlError(Exception):
    """A rejected or failed request; the message is one sentence.  Caught by the commands."""


def call(path: Path, method: str, target: str, *, timeout: float = CALL_TIMEOUT, meanwhile: str = "") -> bytes:
    """Return the body of the response; raise `NotRunning`, `ControlError` or `ConfigError`.

    `meanwhile` is appended to the message of a timeout: the consequence of the request that continues anyway.
    """
    if problem := too_long(path):
        raise ConfigError(problem)
    connection = _Connection(path, timeout)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        body = answer.read()
    except PermissionError:
        raise ControlError(f"{path} is for the user of the supervisor and for root only") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(f"no supervisor listens at {path}") from None
    except TimeoutError:
        raise ControlError(f"the supervisor at {path} does not answer within {timeout:g} s{meanwhile}") from None
    except (OSError, http.client.HTTPException) as error:
        raise ControlError(f"the supervisor at {path} does not answer: {error}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise ControlError(_reason(body) or f"the supervisor at {path} answered {answer.status}")
    return body


def _reason(body: bytes) -> str | None:
    try:
        reply = json.loads(body)
    except ValueError:
        return None
    return str(reply["error"]) if isinstance(reply, dict) and "error" in reply else None


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        connect(self.sock, self._path)
