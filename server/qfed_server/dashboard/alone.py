"""The dashboard in a process of its own, because browsers and Prometheus do not open Unix sockets.

    browser -- http://127.0.0.1:PORT --> this --> DIR/ (runs, read) and DIR/control.sock (sites, stop, submit)

It serves the dashboard only: Flower's control API, which the private socket has too, is never on a TCP port. It needs
no server: while none answers, it says so and shows what lies on disk. HTTP is in clear, so it binds to the loopback
interface unless told otherwise; from elsewhere use ssh -L, or a proxy that ends TLS.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qfed.errors import ConfigError
from qfed_server.ask import ask
from qfed_server.dashboard.app import make_app
from qfed_server.status import SiteStatus

log = logging.getLogger("qfed.server")


class Remote:
    """A Control, and the live list, over a server's private socket."""

    def __init__(self, data: Path) -> None:
        self._socket = data / "control.sock"

    def sites(self) -> Sequence[SiteStatus]:
        """The roster's sites; NoServer while none answers."""
        return [SiteStatus.from_data(each) for each in ask(self._socket, "GET", "/qfed/sites")["sites"]]

    def submit(self, config: str) -> str:
        """See Control."""
        return str(ask(self._socket, "POST", "/qfed/runs", config.encode())["run"])

    def stop(self, run: str, why: str) -> None:
        """See Control."""
        ask(self._socket, "POST", f"/qfed/runs/{quote(run, safe='')}/stop", why.encode())

    def about(self) -> Mapping[str, Any]:
        """See Control."""
        return ask(self._socket, "GET", "/qfed/server")


def serve(data: Path, host: str, port: int, *, admin: bool = False, hosts: Collection[str] = ()) -> None:
    """Serve until SIGTERM or SIGINT; ConfigError when the folder is none of a server's or the port cannot be had."""
    import uvicorn

    from qfed_server.listeners import bind_public

    if not (data / "server.toml").exists() and not (data / "runs").is_dir():
        raise ConfigError(f"data={str(data)!r} is no server's data directory; name it with --data")
    remote = Remote(data)
    app = make_app(data, remote.sites, remote, admin=admin, hosts=hosts)
    if not loopback(host):
        log.warning("host=%s can be reached from other machines, in clear; put TLS in front of it", host)
    with bind_public(host, port) as bound:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=3,
        )
        uvicorn.Server(config).run(sockets=[bound])


def loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return all(
            ipaddress.ip_address(str(found[4][0])).is_loopback
            for found in socket.getaddrinfo(host, None, flags=socket.AI_PASSIVE)
        )
    except OSError:
        raise ConfigError(f"host={host!r} is no address of this machine; 127.0.0.1 is the usual one") from None
