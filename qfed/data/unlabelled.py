"""Records without a target, for a model that answers: a table read by the schema that is stored beside the model.

Columns are found by name, checked, encoded and scaled exactly as for training; whatever else the table holds is left
alone. Values outside a column's public range are clipped to it, as in training, and counted: a model says little there.
Shapes  x (N, F) float32 in [-1, 1]      Errors  DataError, ConfigError for a model whose schema has no columns
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qfed.config import NumericColumn
from qfed.data import table
from qfed.data.load import features_of
from qfed.data.records import Features, Schema
from qfed.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """x (N, F) of a table, and how many values of which column lay outside its public range."""

    x: Features
    outside: Mapping[str, int]


def load_unlabelled(path: str, schema: Schema) -> Unlabelled:
    """Read a .csv or .parquet file for a model of this schema."""
    if not schema.columns:
        raise ConfigError(
            "the model's schema does not tell the columns of its table (it was saved by an older qfed); scale the "
            "records yourself and use Model.predict"
        )
    data = table.read(path, [column.name for column in schema.columns])
    outside = {
        column.name: count
        for column in schema.columns
        if isinstance(column, NumericColumn) and (count := _outside(data.numbers(column.name)[0], column))
    }
    return Unlabelled(features_of(data, schema), outside)


def _outside(values: npt.NDArray[np.float64], column: NumericColumn) -> int:
    return int(np.count_nonzero((values < column.low) | (values > column.high)))
