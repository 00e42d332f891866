"""A data directory as a server leaves it, with rounds shaped as real ones, and the dashboard over it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from report_samples import make_result
from starlette.types import ASGIApp

from qfed.errors import ConfigError
from qfed.federation.runfolder import Checkpoint, RunFolder
from qfed.report import write_result
from qfed_server.dashboard import make_app
from qfed_server.status import SiteStatus

NOW = 1_700_000_000.0
HOME = "http://localhost"


def add_run(data: Path, run: str, status: str, *, done: int = 7, why: str | None = None, **changes: Any) -> Path:
    """Put a run into a data directory: `done` of its rounds are over; a completed one has its result."""
    result = make_result(sites=5, rounds=12, **changes)
    folder = RunFolder.create(data / "runs" / run, run, result.config, np.zeros(151, np.float32), result.metric, 1.0)
    over = status == "completed"
    rounds = result.rounds if over else result.rounds[:done]
    folder.save(
        Checkpoint(
            np.zeros(151, np.float32),
            round=len(rounds),
            initial=result.initial if rounds else None,
            rounds=tuple(rounds),
            final=result.final if over else None,
            traffic={site.name: (site.bytes_up, site.bytes_down) for site in result.sites} if rounds else {},
            taken_part={site.name: len(rounds) for site in result.sites} if rounds else {},
            spent={"site-01": (4.5, 10.0)} if rounds else {},
        )
    )
    ended = NOW - 60 if status in {"completed", "stopped", "failed"} else None
    state = {"status": status, "why": why, "name": run, "submitted": NOW - 300, "finished": ended}
    (folder.path / "state.json").write_text(json.dumps(state))
    events: list[dict[str, Any]] = [{"t": NOW - 300, "event": "submitted", "name": run}]
    events += [{"t": NOW - 200 + 10 * r.round, "event": "round", "round": r.round} for r in rounds]
    (folder.path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if over:
        write_result(result, folder.path)
        (folder.path / "report.html").write_text("<!doctype html><h1>qfed report</h1>")
        (folder.path / "model.npz").write_bytes(b"weights")
    return folder.path


class Browser:
    """Asks an application without a socket, keeps cookies, follows no redirection."""

    def __init__(self, app: ASGIApp, origin: str | None = HOME) -> None:
        self.app, self.cookies = app, httpx.Cookies()
        self._headers = {} if origin is None else {"Origin": origin}

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, **what: Any) -> httpx.Response:
        """One request, one answer."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=HOME, cookies=self.cookies) as client:
                answer = await client.request(method, path, headers={**self._headers, **(headers or {})}, **what)
                self.cookies = client.cookies
                return answer

        return asyncio.run(ask())

    def get(self, path: str, **what: Any) -> httpx.Response:
        """GET."""
        return self.request("GET", path, **what)

    def post(self, path: str, **what: Any) -> httpx.Response:
        """POST."""
        return self.request("POST", path, **what)


@dataclass
class Desk:
    """What a dashboard stands on, to be changed by a test."""

    data: Path
    now: float = NOW
    sites: list[SiteStatus] = field(default_factory=list)
    denied: int = 3
    away: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)

    def submit(self, config: str) -> str:
        """Control."""
        if "refuse" in config:
            raise ConfigError("federation.sites=10, but the federation has 5 sites; set it to 5")
        self.asked.append(("submit", config))
        return "5ubm1tted"

    def stop(self, run: str, why: str) -> None:
        """Control."""
        self.asked.append(("stop", run))

    def about(self) -> dict[str, Any]:
        """Control."""
        return {"denied_requests": self.denied, "oversized_requests": 0, "version": "0.1.0"}

    def seen(self) -> list[SiteStatus]:
        """The live list; a server that is away does not answer."""
        if self.away:
            raise ConfigError("no server answers on control.sock; start it")
        return self.sites

    def client(self, *, signed_in: bool = True, admin: bool = False, **options: Any) -> Browser:
        """A browser of sorts."""
        app = make_app(self.data, self.seen, self, admin=admin, clock=lambda: self.now, **options)
        client = Browser(app)
        if signed_in:
            answer = client.post("/login", data={"token": (self.data / "token").read_text()})
            assert answer.status_code == 303
        return client
