"""A TCP proxy on loopback that a test can cut (connections end, new ones are refused) or make a black hole."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Literal, Self

Mode = Literal["pass", "cut", "swallow"]


class Proxy:
    """Forwards to `port` of this machine; what happens to bytes is `mode`."""

    def __init__(self, port: int) -> None:
        self._target, self.mode = port, "pass"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self._open: list[socket.socket] = []
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def become(self, mode: Mode) -> None:
        """Change the weather; connections that are open when it clears up again, or is cut, are dead."""
        self.mode = mode
        if mode != "swallow":
            self._drop()

    def _drop(self) -> None:
        opened, self._open = self._open, []
        for end in opened:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.mode == "cut":
                here.close()
                continue
            try:
                there = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                here.close()
                continue
            self._open += [here, there]
            threading.Thread(target=self._carry, args=(here, there), daemon=True).start()

    def _carry(self, here: socket.socket, there: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                for end in select.select([here, there], [], [], 0.5)[0]:
                    body = end.recv(1 << 16)
                    if not body:
                        return self._end(here, there)
                    if self.mode == "pass":
                        (there if end is here else here).sendall(body)
        return self._end(here, there)

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._listener.close()
        self._drop()
