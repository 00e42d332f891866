"""Is this container well? `health.py server DIR`: the server answers on its private socket. `health.py site FOLDER`:
the aggregator can be reached over TLS, and its certificate is signed by the authority that site.toml names.

Standard library only, so that a check costs 50 ms and not an import of everything. Exit status 0 well, 1 not.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import sys
import tomllib
from contextlib import closing
from pathlib import Path

SECONDS = 8


class Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self.path))


def server(data: Path) -> http.client.HTTPConnection:
    """To the server's private listener."""
    return Unix(data / "control.sock")


def site(folder: Path) -> http.client.HTTPConnection:
    """To the aggregator, as the agent connects."""
    settings = tomllib.loads((folder / "site.toml").read_text(encoding="utf-8"))["server"]
    host, _, port = settings["address"].rpartition(":")
    trusted = ssl.create_default_context(cafile=str(folder / settings.get("ca", "ca.crt")))
    return http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=SECONDS, context=trusted)


def main(role: str, folder: str) -> int:
    """0 when /health answers."""
    try:
        with closing({"server": server, "site": site}[role](Path(folder))) as connection:
            connection.request("GET", "/health")
            status = connection.getresponse().status
    except (OSError, KeyError, ValueError, http.client.HTTPException) as error:
        print(f"not well: {type(error).__name__}: {error}")
        return 1
    print(f"/health answered with {status}")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]) if len(sys.argv) == 3 else "usage: health.py server DIR | site FOLDER")
