"""qfed predict: a trained model's answers for a table."""

from __future__ import annotations

import csv
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TextIO

import typer

from qfed.errors import ConfigError


def predict(
    model: Annotated[Path, typer.Argument(help="A model's folder, or its model.json.")],
    data: Annotated[Path, typer.Argument(help="Records: a .csv or .parquet file with the model's columns.")],
    out: Annotated[Path | None, typer.Option("--out", help="CSV to write; the screen without.")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also the probability of every class.")
    ] = False,
    circuit: Annotated[
        str | None, typer.Option("--circuit", help="FILE.py:FUNCTION of a model with your own circuit; it is run.")
    ] = None,
) -> None:
    """Answer a table's records with a trained model, one line a record in the table's order."""
    from qfed.data import Schema
    from qfed.data.unlabelled import load_unlabelled
    from qfed.models import load_model

    if data.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"qfed predict reads .csv and .parquet files, got {data}")
    trained = load_model(model, circuit)
    schema = Schema.from_dict(trained.schema)
    if probabilities and schema.classes is None:
        raise ConfigError("this model predicts a number, which has no probabilities; leave --probabilities out")
    records = load_unlabelled(str(data), schema)
    answers = trained.predict(records.x)
    with ExitStack() as stack:
        file = sys.stdout if out is None else stack.enter_context(_opened(out))
        writer = csv.writer(file, lineterminator="\n")
        if schema.classes is None:
            writer.writerow([schema.target])
            writer.writerows([f"{value:.7g}"] for value in answers)
        else:
            names = [f"p({name})" for name in schema.classes] if probabilities else []
            writer.writerow([schema.target, *names])
            for row, best in zip(answers, answers.argmax(axis=1), strict=True):
                told = [f"{value:.6f}" for value in row] if probabilities else []
                writer.writerow([schema.classes[best], *told])
    for name, count in records.outside.items():
        typer.echo(
            f"{count} of {len(answers)} values of {name} lie outside the range that the model was trained for and were "
            "clipped to it; its answers say little there",
            err=True,
        )
    if out is not None:
        typer.echo(f"wrote {len(answers)} answers to {out}")


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
