"""qfed study: questions that take many runs to answer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from qfed.errors import ConfigError

app = typer.Typer(help="Studies: questions that take many runs to answer.", no_args_is_help=True)


@app.command("data-efficiency")
def data_efficiency(
    source: Annotated[
        list[str] | None, typer.Option("--source", help="breast_cancer, digits or wine; may be given again.")
    ] = None,
    generator: Annotated[
        list[str] | None,
        typer.Option("--generator", help="independent, pairwise, boltzmann or born; may be given again."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds: splits, subsets, models and noise.")] = 8,
    points: Annotated[int, typer.Option("--points", min=2, help="Numbers of real records, on a log scale.")] = 5,
    epsilon: Annotated[float, typer.Option("--epsilon", min=0.01, help="Budget of every arm, both uses.")] = 3.0,
    simulated: Annotated[int, typer.Option("--simulated", min=1, help="Simulated records that an arm adds.")] = 500,
    quick: Annotated[bool, typer.Option("--quick", help="Two seeds, three numbers of records, one generator.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for study.html, study.png, study.json.")] = None,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Worlds that are run side by side.")] = min(
        2, os.cpu_count() or 1
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Accuracy against the number of real records, with and without private simulated records, at one budget."""
    from qfed.config import EMBEDDED

    sources = tuple(source or EMBEDDED)
    if unknown := [name for name in sources if name not in EMBEDDED]:
        raise ConfigError(f"--source {unknown[0]!r}: the study knows {', '.join(EMBEDDED)}")
    console = Console(stderr=as_json)
    with console.status("loading the libraries"):
        import torch

        from qfed.generative.library import LIBRARY
        from qfed.report.efficiency import study_page, write_study
        from qfed.simulation.efficiency import Study, study

    generators = tuple(generator or (["independent"] if quick else ["independent", "pairwise"]))
    if unknown := [name for name in generators if name not in LIBRARY]:
        raise ConfigError(f"--generator {unknown[0]!r}: generators are {', '.join(LIBRARY)}")
    settings = Study(
        sources=sources,
        generators=generators,
        seeds=tuple(range(1, (2 if quick else seeds) + 1)),
        points=3 if quick else points,
        epsilon=epsilon,
        simulated=min(simulated, 200) if quick else simulated,
    )
    torch.set_num_threads(1)  # small models are quicker on one thread
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as display:
        bar = display.add_task("worlds", total=None)
        result = study(settings, lambda done, of: display.update(bar, completed=done, total=of), processes)
    if as_json:
        typer.echo(json.dumps(result.model_dump(mode="json"), indent=2, allow_nan=False))
    else:
        console.print(study_page(result))
    if out is not None:
        for path in write_study(result, out):
            console.print(f"{path.name}: {path}", soft_wrap=True, highlight=False)
