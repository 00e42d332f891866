"""qfed server: the aggregation server."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Run the aggregation server.", invoke_without_command=True)

Data = Annotated[Path, typer.Option("--data", help="The server's data directory.")]
DATA = Path("qfed-server")


@app.callback()
def server(
    context: typer.Context,
    data: Data = DATA,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run the aggregation server on its data directory until SIGTERM or Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("httpx", "alembic", "matplotlib", "uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from qfed_server.host import Server, signals

    with signals() as stop:
        Server(data).serve(stop)


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="Data directory to make.")],
    federation: Annotated[Path, typer.Option("--federation", help="Copy of the coordinator's federation.json.")],
    address: Annotated[str, typer.Option("--address", help="host:port that sites connect to.")] = "localhost:9443",
) -> None:
    """Make the data directory of a server: settings and federation file; certificates go into its folder tls."""
    from qfed.config import ServerConfig
    from qfed.federation.invitation import host_and_port
    from qfed_server.datadir import make

    _, port = host_and_port(address)
    place = make(data, federation, ServerConfig(address=address, port=port))
    typer.echo(f"made {place.path} for {place.federation().policy.federation_id}; settings are in {place.settings}")
    if not place.tls("server.crt").exists():
        typer.echo(f"next: put ca.crt, server.crt and server.key into {place.path / 'tls'} (qfed federation certify)")
    typer.echo(f"then: qfed server --data {place.path}")
