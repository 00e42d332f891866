"""The server's two doors: a public one over TLS for sites, a private one on a Unix socket for its operator.

    public    /v1/fleet/* and /health, nothing else: the rest is answered with 404 and counted
    private   all of it: Flower's control API, qfed's own under /qfed, dashboard and metrics

Sockets are bound before anything is started, so what is in the way is told at once. The private socket is made under a
umask, so there is no moment at which another user could connect.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn

from qfed._flower import INSTANCE_HEADER
from qfed._flower.superlink import KEY_HEADER, LOGIN, signed
from qfed.errors import ConfigError
from qfed_server.instances import Instances

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_GRACE = 3  # seconds that a connection may take to finish when the server stops


class FleetOnly:
    """Passes what sites need and nothing else; counts what was `denied` and what was `oversized`.

    A site for which two agents speak at once gets 423 (Locked) until one is silent (instances.py).
    `on_login` is told the node's key and the program (User-Agent) of each login that was let in.
    """

    def __init__(
        self,
        app: App,
        largest: int,
        on_login: Callable[[bytes, str], None] = lambda key, agent: None,
        instances: Instances | None = None,
    ) -> None:
        self._app, self._largest, self._on_login = app, largest, on_login
        self._instances = instances or Instances()
        self.denied = self.oversized = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        path = str(scope["path"])
        if path != "/health" and not path.startswith("/v1/fleet/"):
            self.denied += 1
            await _answer(send, 404)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0" if scope["method"] in ("GET", "HEAD") else b"")
        # Every client of the fleet API states the length; a body without one could go on for ever.
        if not length.isdigit() or int(length) > self._largest:
            self.oversized += 1
            await _answer(send, 413)
            return
        try:
            key = base64.b64decode(headers.get(KEY_HEADER, b""), validate=True)
        except binascii.Error:
            key = b""
        instance, login = headers.get(INSTANCE_HEADER.encode(), b"").decode("latin-1")[:64], path == LOGIN
        came = self._instances.now()
        doubled = bool(key and instance) and self._instances.doubled(key)
        if doubled and not (signed(headers) and self._instances.spoke(key, instance, came, login=login)):
            await _answer(send, HTTPStatus.LOCKED)
            return

        async def noted(message: MutableMapping[str, Any]) -> None:
            """Only what Flower let in has spoken for a site."""
            if key and message["type"] == "http.response.start" and message["status"] == HTTPStatus.OK:
                if instance:
                    self._instances.spoke(key, instance, came, login=login)
                if login:
                    self._on_login(key, headers.get(b"user-agent", b"").decode("latin-1"))
            await send(message)

        await self._app(scope, receive, noted)


class Split:
    """The private door: Flower's paths to Flower, all others to qfed's own application."""

    def __init__(self, flower: App, own: App) -> None:
        self._flower, self._own = flower, own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        flower = scope["type"] == "http" and (scope["path"] == "/health" or str(scope["path"]).startswith("/v1/"))
        await (self._flower if flower else self._own)(scope, receive, send)


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def bind_public(host: str, port: int) -> socket.socket:
    """A bound TCP socket; ConfigError when the port is taken, not ours to use, or the address is not here."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, proto)
    except OSError as error:
        raise ConfigError(f"listen={host!r} is no address of this machine ({error.strerror})") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(1024)
    except OSError as error:
        bound.close()
        why = {
            errno.EADDRINUSE: "is taken by another program; stop it, or set another port in server.toml",
            errno.EACCES: "needs rights that this user does not have; use a port above 1023",
            errno.EADDRNOTAVAIL: f"cannot be had, as listen={host!r} is no address of this machine",
        }.get(error.errno or 0, f"cannot be used ({error.strerror})")
        raise ConfigError(f"port={port} {why}") from None
    return bound


def bind_private(path: Path) -> socket.socket:
    """A listening Unix socket that its owner alone may connect to; replaces what an earlier server left behind."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        bound.bind(str(path))
    except OSError as error:
        bound.close()
        raise ConfigError(f"the socket {path} cannot be made ({error.strerror})") from None
    finally:
        os.umask(mask)
    bound.listen(64)
    return bound


class Listeners:
    """Serves applications on bound sockets from a thread of its own, until `stop`."""

    def __init__(self) -> None:
        self._servers: list[tuple[uvicorn.Server, socket.socket]] = []
        self._thread = Thread(target=self._run, name="listeners", daemon=True)

    def add(self, app: App, bound: socket.socket, *, certificate: Path | None = None, key: Path | None = None) -> None:
        """Serve `app` on `bound`, with TLS where a certificate is given."""
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            ssl_certfile=certificate,
            ssl_keyfile=key,
            ssl_version=ssl.PROTOCOL_TLS_SERVER,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
        config.load()
        if config.ssl is not None:
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
        self._servers.append((uvicorn.Server(config), bound))

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End, letting requests under way finish for a few seconds."""
        for server, _ in self._servers:
            server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(2 * _GRACE)

    def _run(self) -> None:
        async def serve() -> None:
            await asyncio.gather(*(server.serve(sockets=[bound]) for server, bound in self._servers))

        asyncio.run(serve())
