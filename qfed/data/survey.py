"""What a site's table looks like under a run's schema, column by column: for the site's own eyes, never for the wire.

Unlike `encode`, which stops at the first fault, all columns are looked at. The figures depend on private records.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qfed.config import CategoricalColumn, Column, DataConfig, NumericColumn, TargetColumn
from qfed.data.load import columns_of, encode_column, encode_target
from qfed.data.table import Table, is_empty
from qfed.errors import DataError


@dataclass(frozen=True)
class Finding:
    """One column: what it should hold, how many cells are empty or out of range, and what is wrong, if anything."""

    name: str
    expected: str
    empty: int | None
    outside: int | None
    problem: str | None


def survey(data: Table, config: DataConfig) -> tuple[Finding, ...]:
    """A finding a column of the run, the target last."""
    columns, target = columns_of(config)
    return (*(_feature(data, column) for column in columns), _target(data, target))


def _feature(data: Table, column: Column) -> Finding:
    problem = None
    try:
        encode_column(data, column)
    except DataError as error:
        problem = str(error)
    if isinstance(column, CategoricalColumn):
        expected = f"one of {', '.join(column.categories)}"
        return Finding(column.name, expected, _empty_text(data, column.name), None, problem)
    return Finding(column.name, _range(column.low, column.high), *_figures(data, column), problem)


def _target(data: Table, target: TargetColumn) -> Finding:
    problem = None
    try:
        encode_target(data, target)
    except DataError as error:
        problem = str(error)
    if target.low is None or target.high is None:
        expected = f"target: one of {', '.join(target.classes or ())}"
        return Finding(target.name, expected, _empty_text(data, target.name), None, problem)
    as_column = NumericColumn(name=target.name, low=target.low, high=target.high)
    return Finding(target.name, f"target: {_range(target.low, target.high)}", *_figures(data, as_column), problem)


def _figures(data: Table, column: NumericColumn) -> tuple[int | None, int | None]:
    try:
        values, empty = data.numbers(column.name)
    except DataError:
        return None, None
    present = values[~empty]
    return int(empty.sum()), int(np.count_nonzero((present < column.low) | (present > column.high)))


def _empty_text(data: Table, name: str) -> int:
    return int(is_empty(data.text(name)).sum())


def _range(low: float, high: float) -> str:
    return f"{low:g} to {high:g}"
