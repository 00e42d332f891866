"""The aggregator as a Flower ServerApp: the same object for the in-process engine, Ray and SuperLink."""

from __future__ import annotations

from pathlib import Path

from qfed._flower import Context, Grid, ServerApp
from qfed.errors import ConfigError
from qfed.federation.runfolder import RunFolder
from qfed_server.rounds import run_rounds
from qfed_server.synthesis import run_synthesis

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator,unused-ignore]
def main(grid: Grid, context: Context) -> None:
    """Run the federation whose folder the run configuration names as `qfed-run`."""
    folder = context.run_config.get("qfed-run")
    if not isinstance(folder, str):
        raise ConfigError(f"the run configuration must name the run's folder as qfed-run, got {folder!r}")
    place = RunFolder(Path(folder))
    (run_synthesis if place.config.kind == "synthesize" else run_rounds)(grid, place)
