"""The dashboard as an ASGI application: routes, sign-in, forms. It is mounted on the private listener, or served alone.

    make_app(DIR, sites, control)   ->  Starlette; `sites` gives the live list, `control` carries out what forms ask for

Everything but the sign-in page, style, script and the machine-readable pages wants a session; every form wants the
session's form token and an Origin of its own (guard.py). Without `admin=True` the
only forms are those for signing in and out.

Errors  a page says what went wrong in words; a traceback goes to the log `qfed.server`, never to the browser.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from qfed.errors import QfedError
from qfed_server.dashboard.gate import COOKIE, LONGEST, METRICS_TOKEN, TOKEN, Gate, make_token, read_token, same
from qfed_server.dashboard.guard import Guard
from qfed_server.dashboard.metrics import exposition
from qfed_server.dashboard.pages import Page, Pages
from qfed_server.dashboard.runs import Runs
from qfed_server.dashboard.trail import Trail
from qfed_server.status import Control, SiteStatus

MOUNT = "/dashboard"
"""Where the private listener has it."""
METRICS = "/metrics"

Handler = Callable[[Page, Mapping[str, str]], Response]


def make_app(
    data: Path,
    sites: Callable[[], Sequence[SiteStatus]],
    control: Control | None = None,
    *,
    admin: bool = False,
    hosts: Collection[str] = (),
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """The dashboard over a data directory.

    Makes DIR/token and DIR/metrics.token when they are not there. `sites` and `control` may raise a QfedError: the
    server is away then, and the pages say so and show what lies on disk. With `admin` runs can be submitted and
    stopped. `hosts` are names besides localhost that browsers may use.
    """
    gate, trail, runs = Gate(data / TOKEN, clock), Trail(data, clock), Runs(data)
    make_token(data / METRICS_TOKEN)
    allowed = control if admin else None
    pages = Pages(data, runs, sites, trail, allowed, clock)

    def page(handler: Handler, *, form: bool = False) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            session = gate.session(request.cookies.get(COOKIE))
            if session is None:
                return _to_sign_in(request)
            fields = await _fields(request) if form else {}
            if form and not same(fields.get("form", ""), session.form):
                raise HTTPException(403, "This form is too old. Open the page again and send it from there.")
            return await run_in_threadpool(handler, Page(request, session), fields)

        return endpoint

    async def sign_in(request: Request) -> Response:
        if request.method == "GET":
            if gate.session(request.cookies.get(COOKIE)) is not None:
                return RedirectResponse(_root(request) + "/", 303)
            return pages.sign_in(Page(request, None))
        token = (await _fields(request)).get("token", "").strip()
        return await run_in_threadpool(_signed_in, request, token)

    def _signed_in(request: Request, token: str) -> Response:
        wait, caller = gate.wait(), request.client.host if request.client else "unix socket"
        cookie = gate.sign_in(token)
        if cookie is None:
            trail.note("refused", caller=caller, reason="too many wrong tokens" if wait else "wrong token")
            return pages.sign_in(Page(request, None), wait=wait, wrong=True)
        trail.note("signed in", caller=caller)
        answer = RedirectResponse(_root(request) + "/", 303)
        secure = request.url.scheme == "https"
        path = _root(request) or "/"
        answer.set_cookie(
            COOKIE, cookie, max_age=int(LONGEST), path=path, secure=secure, httponly=True, samesite="strict"
        )
        return answer

    def sign_out(here: Page, fields: Mapping[str, str]) -> Response:
        gate.sign_out(here.request.cookies.get(COOKIE))
        trail.note("signed out")
        answer = RedirectResponse(here.root + "/login", 303)
        answer.delete_cookie(COOKIE, path=here.root or "/", httponly=True, samesite="strict")
        return answer

    def metrics(request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not same(token.strip(), read_token(data / METRICS_TOKEN)):
            text = f"401: send the token in {METRICS_TOKEN} as Authorization: Bearer TOKEN\n"
            return PlainTextResponse(text, 401, {"WWW-Authenticate": "Bearer"})
        try:
            seen, about = sites(), control.about() if control is not None else {}
        except QfedError:
            seen, about = None, {}
        body, kind = exposition(data, seen, about, runs.all(), trail.events)
        return Response(body, media_type=kind)

    routes = [
        Route("/login", sign_in, methods=["GET", "POST"]),
        Route("/logout", page(sign_out, form=True), methods=["POST"]),
        Route("/static/{file}", pages.static),
        Route(METRICS, metrics),
        Route("/", page(pages.overview)),
        Route("/runs", page(pages.runs)),
        Route("/runs/{run}", page(pages.run)),
        Route("/runs/{run}/files/{file}", page(pages.file)),
        Route("/audit", page(pages.audit)),
    ]
    if allowed is not None:
        routes += [
            Route("/submit", page(pages.submit), methods=["GET"]),
            Route("/submit", page(pages.submitted, form=True), methods=["POST"]),
            Route("/runs/{run}/stop", page(pages.stop, form=True), methods=["POST"]),
        ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=hosts, machines=(METRICS,))],
        exception_handlers={
            HTTPException: pages.http_error,
            QfedError: pages.qfed_error,
            Exception: pages.fault,
        },
    )


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", ""))


def _to_sign_in(request: Request) -> Response:
    return RedirectResponse(_root(request) + "/login", 303)


async def _fields(request: Request) -> dict[str, str]:
    """A form's fields; a field that is sent twice counts once."""
    try:
        fields = parse_qs((await request.body()).decode(), max_num_fields=20)
    except ValueError:
        raise HTTPException(400, "This is no form.") from None
    return {name: values[0] for name, values in fields.items()}
