"""The dashboard's pages: each handler gathers what is true now and hands it to a template.

Every text that comes from a run, a site or a file goes through jinja2's autoescaping; only our own plots pass as they
are. A page carries a digest of itself as ETag, so the script that looks every two seconds moves bytes only on change.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from qfed.config import to_toml
from qfed.errors import QfedError
from qfed.report import units
from qfed.report.page import bars, summed, templates
from qfed.secagg import Federation
from qfed_server.dashboard import health, picture, times, trail, views
from qfed_server.dashboard.curves import Curves, Drawer
from qfed_server.dashboard.gate import Session
from qfed_server.dashboard.runs import FILES, FIRST, Run, Runs
from qfed_server.status import Control, SiteStatus

_STATIC = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
"""The report brings its style in the page; sandboxed, it can do nothing else."""
_ENTRIES = 200
_PAGES = (("overview", "/", "Overview"), ("runs", "/runs", "Runs"), ("audit", "/audit", "Audit trail"))
_ADMIN_PAGES = (("submit", "/submit", "Submit"),)
_MOMENT = "the moment at which it was loaded"
"""Stands in for the time until the digest is taken: the time alone is no news."""


@dataclass(frozen=True)
class Page:
    """A request for a page, and whose it is."""

    request: Request
    session: Session | None

    @property
    def root(self) -> str:
        """What every link begins with."""
        return str(self.request.scope.get("root_path", ""))


@cache
def _environment() -> Any:
    environment = templates("qfed_server.dashboard")
    environment.globals |= {"units": units, "times": times, "views": views, "downloads": FILES, "first": FIRST}
    return environment


class Pages:
    """All pages over one data directory."""

    def __init__(
        self,
        data: Path,
        runs: Runs,
        sites: Callable[[], Sequence[SiteStatus]],
        log: trail.Trail,
        control: Control | None,
        clock: Callable[[], float],
    ) -> None:
        self._data, self._runs, self._sites, self._trail = data, runs, sites, log
        self._control, self._clock, self._drawer = control, clock, Drawer()

    def _answer(self, here: Page, template: str, status: int = 200, /, **view: Any) -> Response:
        now, admin = self._clock(), self._control is not None
        view = {
            "root": here.root,
            "session": here.session,
            "admin": admin,
            "pages": _PAGES + (_ADMIN_PAGES if admin else ()),
            "page": "",
            "live": False,
            "now": now,
            "moment": _MOMENT,
            **view,
        }
        text = _environment().get_template(template).render(view)
        tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'
        if status == 200 and here.request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return HTMLResponse(text.replace(_MOMENT, times.moment(now)), status, {"ETag": tag})

    def _federation(self) -> Federation | None:
        try:
            return Federation.from_text((self._data / "federation.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, QfedError):
            return None

    def sign_in(self, here: Page, *, wait: float = 0.0, wrong: bool = False) -> Response:
        """The form for the token."""
        status = 429 if wait else 401 if wrong else 200
        answer = self._answer(here, "login.html.j2", status, wait=math.ceil(wait), wrong=wrong)
        if wait:
            answer.headers["Retry-After"] = str(math.ceil(wait))
        return answer

    def overview(self, here: Page, _: Mapping[str, str]) -> Response:
        """Is everything alright, who is missing, how far is the run, what was spent."""
        now, runs, federation = self._clock(), self._runs.all(), self._federation()
        away = None
        try:
            sites = list(self._sites())
        except QfedError as error:
            sites = [SiteStatus(site.name) for site in federation.roster] if federation else []
            away = str(error)
        verdict = health.judge(self._data, sites, runs, federation, now, away)
        current = [run for run in runs if run.status == "running"] or runs[:1]
        return self._answer(
            here,
            "overview.html.j2",
            page="overview",
            live=True,
            health=verdict,
            maps=[picture.draw(sites, frame, now, known=away is None) for frame in picture.FRAMES],
            known=away is None,
            federation=federation,
            current=current[:2],
            waiting=sum(run.status == "queued" for run in runs[1:]),
            rows=views.site_rows(sites, current[0] if current and current[0].under_way else None),
            runs=runs[:6],
        )

    def runs(self, here: Page, _: Mapping[str, str]) -> Response:
        """All runs."""
        return self._answer(here, "runs.html.j2", page="runs", live=True, runs=self._runs.all())

    def _run(self, here: Page) -> Run:
        run = self._runs.get(here.request.path_params["run"])
        if run is None:
            raise HTTPException(404, "There is no run of this name.")
        return run

    def run(self, here: Page, _: Mapping[str, str]) -> Response:
        """One run, live while it is under way."""
        run = self._run(here)
        return self._answer(
            here,
            "run.html.j2",
            page="runs",
            live=True,
            run=run,
            curves=self._drawer.curves(run) if run.trains else Curves(),
            tiles=views.tiles(run, self._clock()),
            sites=views.run_sites(run),
            phases=bars(summed(record.seconds for record in run.rounds)),
            volumes=bars(summed(record.bytes for record in run.rounds), units.size),
            events=trail.entries((), [run])[:50],
            toml=to_toml(run.settings) if run.settings else None,
        )

    def file(self, here: Page, _: Mapping[str, str]) -> Response:
        """Download of one of a run's files; the report opens in the browser."""
        run, name = self._run(here), here.request.path_params["file"]
        if name not in run.files:
            raise HTTPException(404, "This run has no such file (yet).")
        if name == "report.html" and "save" not in here.request.query_params:
            headers = {"Content-Security-Policy": _REPORT_POLICY}
            return FileResponse(run.path / name, media_type="text/html", headers=headers)
        return FileResponse(run.path / name, filename=f"{run.name}-{name}", media_type="application/octet-stream")

    def audit(self, here: Page, _: Mapping[str, str]) -> Response:
        """The audit trail."""
        found = trail.entries(self._trail.events, self._runs.all())
        before = here.request.query_params.get("before", "")
        try:
            found = [entry for entry in found if entry.t < float(before)] if before else found
        except ValueError:
            raise HTTPException(400, "before= takes Unix seconds.") from None
        more = found[_ENTRIES - 1].t if len(found) > _ENTRIES else None
        view = {"entries": found[:_ENTRIES], "more": more, "before": before}
        return self._answer(here, "audit.html.j2", page="audit", live=not before, **view)

    def submit(self, here: Page, _: Mapping[str, str]) -> Response:
        """The form for a run's configuration."""
        return self._answer(here, "submit.html.j2", page="submit", text="", error=None)

    def submitted(self, here: Page, fields: Mapping[str, str]) -> Response:
        """Queue a run, or say what is wrong with its configuration."""
        assert self._control is not None  # noqa: S101 - the route exists for administrators only
        text = fields.get("config", "").replace("\r\n", "\n")
        try:
            run = self._control.submit(text)
        except QfedError as error:
            self._trail.note("action failed", action="submit", why=str(error))
            return self._answer(here, "submit.html.j2", 422, page="submit", text=text, error=str(error))
        self._trail.note("submit asked", run=run)
        return RedirectResponse(f"{here.root}/runs/{run}", 303)

    def stop(self, here: Page, _: Mapping[str, str]) -> Response:
        """Stop a run."""
        assert self._control is not None  # noqa: S101 - the route exists for administrators only
        run = self._run(here)
        try:
            self._control.stop(run.name, "by an administrator, from the dashboard")
        except QfedError as error:
            self._trail.note("action failed", action="stop", run=run.name, why=str(error))
            raise
        self._trail.note("stop asked", run=run.name)
        return RedirectResponse(f"{here.root}/runs/{run.name}", 303)

    def static(self, request: Request) -> Response:
        """Style, script and icon: the report's style and our own in one file."""
        name = request.path_params["file"]
        if name not in _STATIC:
            raise HTTPException(404, "There is no such file.")
        body = (files("qfed_server.dashboard") / "static" / name).read_bytes()
        if name == "style.css":
            body = (files("qfed.report") / "templates" / "style.css").read_bytes() + b"\n" + body
        tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(body, media_type=_STATIC[name], headers={"ETag": tag, "Cache-Control": "no-cache"})

    def http_error(self, request: Request, error: Exception) -> Response:
        """A page for a refusal."""
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
        return self._answer(Page(request, None), "message.html.j2", error.status_code, text=error.detail)

    def qfed_error(self, request: Request, error: Exception) -> Response:
        """A page for what qfed raised on purpose."""
        return self._answer(Page(request, None), "message.html.j2", 409, text=str(error))

    def fault(self, request: Request, error: Exception) -> Response:
        """A page for what nobody foresaw; the traceback goes on to the server's log."""
        text = f"The dashboard failed ({type(error).__name__}); runs are not concerned. The server's log has more."
        return self._answer(Page(request, None), "message.html.j2", 500, text=text)
