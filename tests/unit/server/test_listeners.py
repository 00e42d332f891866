"""The public door: what passes, what is counted; sockets and what is in their way."""

from __future__ import annotations

import asyncio
import base64
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from qfed._flower.superlink import KEY_HEADER, LOGIN
from qfed.errors import ConfigError
from qfed_server.listeners import FleetOnly, Split, bind_private, bind_public


async def passed(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers everything with 200."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def status_of(app: Any, path: str, method: str = "POST", **headers: str) -> int:
    """The status that a request gets; 0 for no answer."""
    told: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            told.append(message["status"])

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(app({"type": "http", "path": path, "method": method, "headers": raw}, None, send))
    return told[0] if told else 0


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/openapi.json", "/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/fleet", "/v1/fleetx/a",
     "//v1/fleet/pull-messages", "/health/", "/healthz", "/qfed/runs", "/dashboard/metrics"],
)  # fmt: skip
def test_everything_beside_the_fleet_api_is_not_there(path: str) -> None:
    app = FleetOnly(passed, 1000)
    assert status_of(app, path, content_length="0") == 404
    assert app.denied == 1


def test_the_fleet_api_and_health_pass() -> None:
    app = FleetOnly(passed, 1000)
    assert status_of(app, "/v1/fleet/pull-messages", content_length="1000") == 200
    assert status_of(app, "/health", "GET") == 200
    assert (app.denied, app.oversized) == (0, 0)


@pytest.mark.parametrize("length", ["1001", "99999999999999999999", "-1", "1e3", ""])
def test_what_is_too_large_or_does_not_say_is_refused_unread(length: str) -> None:
    app = FleetOnly(passed, 1000)
    headers = {"content_length": length} if length else {"transfer_encoding": "chunked"}
    assert status_of(app, "/v1/fleet/push-object", **headers) == 413
    assert app.oversized == 1


def test_other_protocols_get_no_answer() -> None:
    answered: list[Any] = []

    async def send(message: Any) -> None:
        answered.append(message)

    asyncio.run(FleetOnly(passed, 1000)({"type": "websocket", "path": "/v1/fleet/x"}, None, send))  # type: ignore[arg-type]
    assert answered == []


def test_a_login_tells_which_program_it_was() -> None:
    seen: list[tuple[bytes, str]] = []
    app = FleetOnly(passed, 1000, lambda key, agent: seen.append((key, agent)))
    header = {KEY_HEADER.decode(): base64.b64encode(b"key").decode(), "user-agent": "qfed/9", "content-length": "0"}
    assert status_of(app, LOGIN, **header) == 200
    assert status_of(app, "/v1/fleet/pull-messages", **header) == 200
    assert status_of(app, LOGIN, **{**header, KEY_HEADER.decode(): "no base64!"}) == 200
    assert seen == [(b"key", "qfed/9")]


def test_the_private_door_knows_flowers_paths_from_its_own() -> None:
    async def own(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})

    app = Split(passed, own)
    assert [status_of(app, path) for path in ("/v1/control/list-runs", "/health", "/qfed/runs", "/dashboard/")] == [
        200, 200, 201, 201,
    ]  # fmt: skip


def test_what_is_in_the_way_of_a_port_is_told() -> None:
    with bind_public("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port={port} is taken"):
            bind_public("127.0.0.1", port)
    with pytest.raises(ConfigError, match="no address of this machine"):
        bind_public("192.0.2.1", port)
    with pytest.raises(ConfigError, match="no address of this machine"):
        bind_public("no host at all", port)


def test_the_private_socket_is_its_owners_and_replaces_what_was_left(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with bind_private(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.exists(), "as a crash leaves it"
    with bind_private(path), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    with pytest.raises(ConfigError, match="cannot be made"):
        bind_private(tmp_path / "nowhere" / "control.sock")
