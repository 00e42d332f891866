"""qfed simulate: a whole federation on this machine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from qfed.errors import MissingExtra, SpendingCapReached

if TYPE_CHECKING:
    from qfed.config import RunConfig


def simulate(
    config: Annotated[Path | None, typer.Argument(help="Configuration (TOML); the defaults without one.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field, e.g. privacy.epsilon=1.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for results, model and report.")] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="inprocess, or ray (with the extra sim).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier simulation in OUT.")] = False,
    fit: Annotated[
        bool, typer.Option("--fit/--no-fit", help='kind = "synthesize": fit and try the generator in OUT/synth.')
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log of sites and aggregator.")] = False,
) -> None:
    """Simulate a federation: real models, real noise, real encryption, sites on this machine."""
    from qfed.config import load_config

    resolved = load_config(config, [*(set_ or []), *([f"simulation.engine={engine}"] if engine else [])])
    console = Console()
    if resolved.kind == "synthesize":
        _synthesize(resolved, out, force, quiet, verbose, console)
        if fit and out is not None:
            _fit(resolved, out, console)
        return
    with console.status("loading the libraries"):
        from qfed.federation.device_use import estimate
        from qfed.report import final_table
        from qfed.report.units import epsilon
        from qfed.simulation import Step, simulate
    _set_logs(verbose)
    if (expected := estimate(resolved)) is not None:
        console.print(expected.sentence(), style="yellow" if expected.exceeds else "", highlight=False)
    bars: dict[int, TaskID] = {}
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        console=console,
        disable=quiet,
    ) as display:

        def show(step: Step) -> None:
            if step.part not in bars:
                bars[step.part] = display.add_task(step.label, total=step.rounds, figures="")
            figures = f"score {step.score:.3f}" if step.score is not None else ""
            if step.epsilon is not None:
                figures += f"  ε {epsilon(step.epsilon)}"
            display.update(bars[step.part], completed=step.round)
            if figures:
                display.update(bars[step.part], figures=figures)

        result = simulate(resolved, out=out, force=force, progress=show)
    console.print(final_table(result))
    if out is not None:
        for what, name in (("report", "report.html"), ("data", "result.json"), ("model", "model.npz")):
            typer.echo(f"{what + ':':8}{out / name}")
    else:
        console.print("nothing was saved; name a folder with --out DIR for report, model and data")
    if result.device is not None and result.device.capped:
        raise SpendingCapReached(
            f"the run stopped after {len(result.rounds)} rounds, since the next circuits would have passed "
            "quantum.most_shots or quantum.most_price; the last good model is kept"
        )


def _set_logs(verbose: bool) -> None:
    """After the imports: Flower sets its logger's level when it is imported."""
    logging.getLogger("flwr").setLevel(logging.INFO if verbose else logging.ERROR)
    logging.getLogger("qfed.site").setLevel(logging.INFO if verbose else logging.CRITICAL)


def _synthesize(config: RunConfig, out: Path | None, force: bool, quiet: bool, verbose: bool, console: Console) -> None:
    """A run of kind "synthesize"."""
    with console.status("loading the libraries"):
        from qfed.report import synthesis_table
        from qfed.simulation import synthesize
    _set_logs(verbose)
    bars: dict[str, TaskID] = {}
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, disable=quiet,
    ) as display:  # fmt: skip

        def show(what: str, done: int, of: int) -> None:
            if what not in bars:
                bars[what] = display.add_task(what, total=of)
            display.update(bars[what], completed=done)

        result = synthesize(config, out=out, force=force, progress=show)
    console.print(synthesis_table(result))
    if out is None:
        console.print("nothing was saved; name a folder with --out DIR for report and counts")
        return
    for what, name in (("report", "report.html"), ("data", "result.json"), ("counts", "statistics.npz")):
        typer.echo(f"{what + ':':8}{out / name}")


def _fit(config: RunConfig, out: Path, console: Console) -> None:
    """What a person would do next, on the simulation's own records."""
    from qfed.cli import synth

    open_counts = ["--no-privacy"] if config.privacy.mode == "off" else []
    try:
        synth.fit(out, out=out / "synth", no_privacy=bool(open_counts))
    except MissingExtra as error:
        then = " ".join(["qfed synth fit", str(out), "--out", str(out / "synth"), *open_counts])
        console.print(f"[yellow]no generator was fitted:[/] {escape(str(error))}; then: {then}", soft_wrap=True)
        return
    synth.evaluate(out / "synth", quick=True, out=out / "synth")
