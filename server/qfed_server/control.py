"""qfed's own control API on the private socket: what changes something goes through the process that owns the state.

    POST /qfed/runs              body: a configuration (TOML)         201 {"run": ...}
    POST /qfed/runs/RUN/stop     body: why                            200 {}
    POST /qfed/runs/RUN/resume                                        200 {}
    GET  /qfed/sites             every site of the roster, and whether it is online
    GET  /qfed/server            what serves here

What went wrong comes back as {"error": text} with 400 for a mistake in the input. Reading runs needs no server: their
folders are files (journal.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from qfed.errors import QfedError
from qfed_server.admission import LARGEST
from qfed_server.status import Control, SiteStatus

LONGEST_WHY = 500


class Desk(Control, Protocol):
    """What the operator may ask for at the private socket."""

    def resume(self, run: str) -> None:
        """Go on with a run that failed or was stopped."""

    def sites(self) -> Sequence[SiteStatus]:
        """Every site of the roster."""
        ...


def routes(control: Desk) -> list[Route]:
    """The API over a server."""

    async def submit(request: Request) -> JSONResponse:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST:
                return JSONResponse({"error": f"a configuration has at most {LARGEST} bytes"}, 400)
        return await _answered(lambda: {"run": control.submit(body.decode("utf-8", "replace"))}, 201)

    async def stop(request: Request) -> JSONResponse:
        given = (await request.body()).decode("utf-8", "replace")[:LONGEST_WHY]
        why = given.strip() or "by the operator"

        def work() -> dict[str, Any]:
            control.stop(request.path_params["run"], why)
            return {}

        return await _answered(work, 200)

    async def resume(request: Request) -> JSONResponse:
        def work() -> dict[str, Any]:
            control.resume(request.path_params["run"])
            return {}

        return await _answered(work, 200)

    async def sites(_: Request) -> JSONResponse:
        return await _answered(lambda: {"sites": [asdict(site) for site in control.sites()]}, 200)

    async def server(_: Request) -> JSONResponse:
        return await _answered(lambda: dict(control.about()), 200)

    return [
        Route("/qfed/runs", submit, methods=["POST"]),
        Route("/qfed/runs/{run}/stop", stop, methods=["POST"]),
        Route("/qfed/runs/{run}/resume", resume, methods=["POST"]),
        Route("/qfed/sites", sites, methods=["GET"]),
        Route("/qfed/server", server, methods=["GET"]),
    ]


async def _answered(work: Callable[[], dict[str, Any]], status: int) -> JSONResponse:
    try:
        return JSONResponse(await run_in_threadpool(work), status)
    except QfedError as error:
        return JSONResponse({"error": str(error)}, 400 if error.exit_status == 2 else 500)
    except OSError as error:
        return JSONResponse({"error": f"the server cannot write its data directory ({error.strerror})"}, 500)
