"""qfed track: a server's runs in TensorBoard or MLflow, while they go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from qfed.errors import ConfigError


def track(
    data: Annotated[Path, typer.Option("--data", help="The server's data directory.")] = Path("qfed-server"),
    tensorboard: Annotated[Path | None, typer.Option("--tensorboard", help="Log folder of TensorBoard.")] = None,
    mlflow: Annotated[
        str | None, typer.Option("--mlflow", help="MLflow's tracking URI, e.g. sqlite:///mlflow.db.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Hand over what is there, and end.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.5, help="Seconds between two looks.")] = 5.0,
) -> None:
    """Hand each round's figures to TensorBoard or MLflow (extras tensorboard, mlflow), until interrupted."""
    from qfed_server.dashboard.runs import Runs
    from qfed_server.sinks import Follower, Sink

    if not (data / "runs").is_dir():
        raise ConfigError(f"data={str(data)!r} is no server's data directory (it has no folder runs)")
    sinks: list[Sink] = []
    if tensorboard is not None:
        from qfed_server.sinks.tensorboard import TensorBoard

        sinks.append(TensorBoard(tensorboard))
    if mlflow is not None:
        from qfed_server.sinks.mlflow import MLflow

        sinks.append(MLflow(mlflow))
    if not sinks:
        raise ConfigError("say where the figures go: --tensorboard FOLDER, --mlflow URI, or both")
    followers = [Follower(data, Runs(data), sink) for sink in sinks]
    while True:
        for follower, sink in zip(followers, sinks, strict=True):
            sent = follower.look()
            if sent or once:
                typer.echo(f"{sink.name}: {sent} figures")
        if once:
            return
        time.sleep(every)
