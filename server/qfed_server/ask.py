"""A question to the server over its private socket: one HTTP request, one JSON answer."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

from qfed.errors import ConfigError, QfedError

_PATIENCE = 60.0


class NoServer(ConfigError):
    """Nobody answers on the socket."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("server", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, body: bytes = b"") -> dict[str, Any]:
    """The answer. NoServer when none runs, ConfigError for a mistake in what was asked, QfedError for the server's."""
    with closing(_Connection(path)) as connection:
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoServer(
                f"no server answers on {path} ({error}); start it: qfed server --data {path.parent}"
            ) from None
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {}
    if response.status < 300:
        return dict(answer)
    told = str(answer.get("error", f"the server answered with HTTP status {response.status}; see its log"))
    raise ConfigError(told) if response.status == 400 else QfedError(told)
