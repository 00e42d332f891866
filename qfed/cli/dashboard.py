"""qfed dashboard: the operator's pages in a browser."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer


def dashboard(
    data: Annotated[Path, typer.Option("--data", help="The server's data directory.")] = Path("qfed-server"),
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to serve on.")] = 8765,
    host: Annotated[
        str, typer.Option("--host", help="Address to bind to; beyond this machine only in a container or behind TLS.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME", help="Name besides localhost for browsers.")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Let runs be submitted and stopped from the pages.")] = False,
) -> None:
    """Serve a server's dashboard and /metrics on this machine: sites, runs, audit trail; read-only without --admin."""
    from qfed_server.dashboard.alone import serve

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("uvicorn", "asyncio", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    typer.echo(f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{port}  token: {data / 'token'}")  # noqa: S104
    serve(data, host, port, admin=admin, hosts=allow_host or ())
