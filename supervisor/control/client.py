"""Requests to the running program over its control socket.  Runs in a command, which is to answer at once: nothing but
the standard library is used.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

from supervisor.control.socket_path import NotRunning, connect, too_long
from supervisor.settings.resolution import ConfigError

CALL_TIMEOUT = 10.0
"""Seconds until an answer."""


class ControlError(Exception):
    """The running program does not do it; the text is its sentence.  Caught by the commands."""


def call(path: Path, method: str, target: str, *, timeout: float = CALL_TIMEOUT, meanwhile: str = "") -> bytes:
    """The body of the answer; raise `NotRunning`, `Denied` or `ConfigError`.

    `meanwhile` is what happens although there is no answer in time, for the sentence.
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
        told = json.loads(body)
    except ValueError:
        return None
    return str(told["error"]) if isinstance(told, dict) and "error" in told else None


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        connect(self.sock, self._path)
