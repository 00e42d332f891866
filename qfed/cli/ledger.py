"""qfed ledger: what a site's privacy ledger says."""

from __future__ import annotations

import csv
import json
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from qfed.errors import ConfigError

if TYPE_CHECKING:
    from qfed.privacy.ledger import Ledger

app = typer.Typer(help="Read a site's privacy ledger.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="The ledger, e.g. runs/demo/ledgers/site-0.db.")]
Delta = Annotated[float, typer.Option("--delta", help="Delta at which epsilon is told.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable.")]


@app.command()
def show(path: File, delta: Delta = 1e-5, as_json: Json = False) -> None:
    """Show what each run has charged to each data set, and epsilon in all."""
    book = _open(path, delta)
    try:
        reserved = sorted(
            (entry for entry in book.rows() if entry.what == "reserve"), key=lambda entry: (entry.dataset, entry.run)
        )
        rows = []
        for (dataset, run), group in groupby(reserved, key=lambda entry: (entry.dataset, entry.run)):
            entries = list(group)
            rows.append(
                {
                    "dataset": dataset,
                    "run": run,
                    "rounds": len(entries),
                    "planned_rounds": entries[0].planned_rounds,
                    "steps": sum(entry.steps for entry in entries),
                    "sampling_rate": entries[0].sampling_rate,
                    "noise_multiplier": entries[0].noise_multiplier,
                }
            )
        spent = {dataset: book.spent(dataset) for dataset in dict.fromkeys(str(row["dataset"]) for row in rows)}
        held = {dataset: book.committed(dataset) for dataset in spent}
    finally:
        book.close()
    if as_json:
        typer.echo(json.dumps({"delta": delta, "spent": spent, "committed": held, "runs": rows}, indent=2))
        return
    table = Table(title=f"{path}: epsilon at delta = {delta:g}")
    for title in ("data set", "run", "rounds", "steps", "sampling rate", "noise multiplier"):
        table.add_column(title, justify="left" if title in ("data set", "run") else "right")
    for row in rows:
        rounds = f"{row['rounds']} of {row['planned_rounds']}"
        rate, sigma = f"{row['sampling_rate']:g}", f"{row['noise_multiplier']:.4g}"
        table.add_row(str(row["dataset"]), str(row["run"]), rounds, str(row["steps"]), rate, sigma)
    console = Console()
    console.print(table)
    for dataset, epsilon in spent.items():
        rest = f", {held[dataset]:.4g} once all runs have ended" if held[dataset] > epsilon * (1 + 1e-9) else ""
        console.print(f"{dataset}: epsilon {epsilon:.4g} spent in all{rest}")


@app.command()
def verify(path: File, as_json: Json = False) -> None:
    """Check that no row was changed since it was written."""
    book = _open(path, 1e-5)
    try:
        rows, head = book.verify(), next(book.heads()).hex()
    finally:
        book.close()
    if as_json:
        typer.echo(json.dumps({"rows": rows, "head": head, "intact": True}, indent=2))
    else:
        typer.echo(f"{path}: {rows} rows, chain intact, head {head[:16] or 'none'}")


@app.command()
def export(
    path: File,
    form: Annotated[Literal["json", "csv"], typer.Option("--format", help="json or csv.")] = "json",
) -> None:
    """Write every row to the standard output, chain checked first; for an archive or another accountant."""
    book = _open(path, 1e-5)
    try:
        book.verify()
        rows = [_plain(vars(entry)) for entry in book.rows()]
    finally:
        book.close()
    if form == "json":
        typer.echo(json.dumps(rows, indent=2))
        return
    writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else ["what"])
    writer.writeheader()
    writer.writerows(rows)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}


def _open(path: Path, delta: float) -> Ledger:
    from qfed.privacy.ledger import Ledger, Limits

    if not path.is_file():
        inside = sorted([*path.glob("*.db"), *path.glob("ledgers/*.db")])
        way_out = (
            f"name one of the files in it, e.g. {inside[0]}" if inside else "a simulation leaves them in DIR/ledgers"
        )
        raise ConfigError(f"there is no ledger at path={str(path)!r}; {way_out}")
    return Ledger(path, Limits(float("inf"), delta))
