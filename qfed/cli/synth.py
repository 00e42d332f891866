"""qfed synth: simulated data from private pair counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from qfed.errors import ConfigError

if TYPE_CHECKING:
    from qfed.synth.evaluation import Evaluation

app = typer.Typer(help="Simulated data: fit a generator to private counts, sample records, see what they are worth.")
_Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@app.command()
def fit(
    source: Annotated[
        Path | None,
        typer.Argument(help="A released run's folder, or a configuration (TOML) whose records are counted here."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the fitted generator.")] = Path("synth"),
    generator: Annotated[str | None, typer.Option("--generator", help="boltzmann, born, pairwise, ...")] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help="sa, sqa, mock or qpu (boltzmann, rbm).")] = None,
    set_: _Set = None,
    no_privacy: Annotated[bool, typer.Option("--no-privacy", help="Use exact counts; protects nobody.")] = False,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", help="Ledger that a release made here is charged to.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", min=0, help="Epsilon these records may lose in all; privacy.epsilon.")
    ] = None,
    force: _Force = False,
) -> None:
    """Fit a generator to released counts; a configuration's records are counted privately first."""
    chosen = {"generator": generator, "sampler": sampler}
    overrides = [*(set_ or []), *(f"synth.{key}={value}" for key, value in chosen.items() if value is not None)]
    _room(out, force)
    console = Console()
    with console.status("loading the libraries"):
        from qfed.synth.fitting import fit_source
    with _progress(console, "fitting") as tell:
        fitted = fit_source(
            source, overrides, no_privacy=no_privacy, ledger=ledger, budget=budget, out=out, progress=tell
        )
    from qfed.synth.page import fit_page

    console.print(fit_page(fitted.model, fitted.told))
    console.print(
        f"model: {out}   next: qfed synth sample {out} 1000 --out synthetic.csv", soft_wrap=True, highlight=False
    )


@app.command()
def sample(
    model: Annotated[Path, typer.Argument(help="Folder of `qfed synth fit`.")],
    count: Annotated[int, typer.Argument(min=1, help="Records to draw.")],
    out: Annotated[Path, typer.Option("--out", help="File for the records: .csv or .parquet.")] = Path("synthetic.csv"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same records (not on a device).")] = 1,
    force: _Force = False,
) -> None:
    """Draw simulated records, with the columns and units of the schema."""
    import numpy as np

    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another --out, or say --force to replace it")
    console = Console()
    with console.status("loading the libraries"):
        from qfed.synth.page import privacy_line
        from qfed.synth.records import Fitted, write_records
    fitted = Fitted.load(model)
    with console.status("drawing"):
        records = fitted.draw(count, np.random.default_rng(seed))
    for path in write_records(fitted, records, out):
        console.print(f"{path.name}: {path}", soft_wrap=True, highlight=False)
    console.print(privacy_line(fitted.synthesizer.release.privacy))


@app.command()
def evaluate(
    synthetic: Annotated[Path, typer.Argument(help="Simulated records (.csv, .parquet), or a folder of `synth fit`.")],
    real: Annotated[
        Path | None, typer.Option("--real", help="Real records (.csv, .parquet); else the configuration's own.")
    ] = None,
    records: Annotated[int, typer.Option("--records", min=50, help="Records to draw from each generator.")] = 4000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of draws and classifiers.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out mbi, and the hybrid model of comparisons.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for evaluation.json, .png and .html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Fidelity, usefulness and a nearest-record check against real records, which stay on this machine."""
    console = Console(stderr=as_json)
    with console.status("loading the libraries"):
        from qfed.synth.evaluation import evaluate as run
        from qfed.synth.page import evaluation_page, write_evaluation
    with _progress(console, "evaluating") as tell:
        found: Evaluation = run(synthetic, real=real, records=records, seed=seed, quick=quick, progress=tell)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        console.print(evaluation_page(found))
    if out is not None:
        for path in write_evaluation(found, out):
            console.print(f"{path.name}: {path}", soft_wrap=True, highlight=False)


@contextmanager
def _progress(console: Console, what: str) -> Iterator[Any]:
    with Progress(console=console, transient=True) as display:
        bar = display.add_task(what, total=None)
        yield lambda done, total: display.update(bar, completed=done, total=total)


def _room(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")
    if (out / "model.json").exists() and not force:
        raise ConfigError(f"{out} holds a fitted generator; choose another --out, or say --force to replace it")
