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
    """Run the federation whose folder the run configuration names as `qfed-run`.

    A folder in which a simulation put its initial model is only trained. One that a server made has none yet, and goes
    all the way from the sites' initial model to the report.
    """
    name = context.run_config.get("qfed-run")
    if not isinstance(name, str):
        raise ConfigError(f"the run configuration must name the run's folder as qfed-run, got {name!r}")
    folder = RunFolder(Path(name))
    if context.run_config.get("qfed-deployed") == "yes":
        from qfed_server.conduct import conduct
        from qfed_server.journal import Journal

        journal, grace = Journal(folder.path), float(context.run_config.get("qfed-grace", 30.0))
        conduct(grid, folder, journal.tell, grace=grace, began=journal.state.started or journal.state.submitted)
    else:
        (run_synthesis if folder.config.kind == "synthesize" else run_rounds)(grid, folder)
