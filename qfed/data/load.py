"""A configured source becomes records in [-1, 1], by public ranges and categories alone.

    numeric      x = 2 (clip(v, low, high) - low) / (high - low) - 1            one coordinate
    categorical  x[c] = +1 if v = c else -1                                     one coordinate a category
    target       index of the class, or scaled like a numeric feature

`low`, `high` and the categories come from the configuration (public knowledge); nothing is fitted to the records.
With data.features = "gradient_histogram" these values are pixels, and the features are made of them (gradients).
Values outside a range are clipped and counted; the count depends on private records, so it goes to this machine's log
and nowhere else.    Cost O(N F)    Errors DataError, MissingExtra
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from qfed.config import EMBEDDED, CategoricalColumn, Column, DataConfig, NumericColumn, TargetColumn
from qfed.data import embedded, gradients, table
from qfed.data.records import Dataset, Records, Schema, Targets, Task
from qfed.data.scaling import scaled
from qfed.errors import ConfigError, DataError

_log = logging.getLogger(__name__)


def schema_of(config: DataConfig) -> Schema:
    """What the records will look like, known before any is read."""
    columns, target = columns_of(config)
    features: list[str] = []
    for column in columns:
        if isinstance(column, CategoricalColumn):
            features += [f"{column.name}={category}" for category in column.categories]
        else:
            features.append(column.name)
    if config.features == "gradient_histogram":
        features = list(gradients.names(len(features)))
    task: Task = "regression" if target.classes is None else "classification"
    ends = (target.low, target.high) if target.low is not None and target.high is not None else None
    return Schema(tuple(features), task, target.classes, target.name, ends, columns, config.features)


def load(config: DataConfig) -> Dataset:
    """Read, check, encode and scale the records of `config.source`."""
    schema = schema_of(config)
    if config.source in EMBEDDED:
        x, y = embedded.raw(config.source)
        parts = [_scale(x[:, i], c, config.source) for i, c in enumerate(embedded.COLUMNS[config.source])]
        return Dataset(schema, Records(_features(parts, config), y))
    columns, target = columns_of(config)
    by_site = [config.column] if config.partition == "column" and config.column is not None else []
    data = table.read(config.source, [*(column.name for column in columns), target.name, *by_site])
    site_of = None
    if by_site:
        names = _present(data, by_site[0], data.text(by_site[0]), "say for every record which site it belongs to")
        site_of = names.astype(np.str_)
    return replace(encode(data, config), site_of=site_of)


def encode(data: table.Table, config: DataConfig) -> Dataset:
    """Check, encode and scale a table that holds the columns of `columns_of`, under their names."""
    columns, target = columns_of(config)
    parts = [part for column in columns for part in encode_column(data, column)]
    return Dataset(schema_of(config), Records(_features(parts, config), encode_target(data, target)))


def features_of(data: table.Table, schema: Schema) -> npt.NDArray[np.float32]:
    """x (N, F) of a table that holds the columns of a stored model's schema; raises DataError."""
    return _made([part for column in schema.columns for part in encode_column(data, column)], schema.made)


def _features(columns: list[npt.NDArray[np.float32]], config: DataConfig) -> npt.NDArray[np.float32]:
    return _made(columns, config.features)


def _made(columns: list[npt.NDArray[np.float32]], how: str) -> npt.NDArray[np.float32]:
    values = np.stack(columns, axis=1)
    return gradients.gradient_histogram(values) if how == "gradient_histogram" else values


def columns_of(config: DataConfig) -> tuple[tuple[Column, ...], TargetColumn]:
    """The features and the target, of a file or of an embedded set."""
    if config.source in EMBEDDED:
        return embedded.COLUMNS[config.source], embedded.TARGETS[config.source]
    if not config.columns or config.target is None:  # only a config that went round validation gets here
        raise ConfigError(f"data.source={config.source!r} is a file, so data.columns and data.target must be given")
    return config.columns, config.target


def encode_column(data: table.Table, column: Column) -> list[npt.NDArray[np.float32]]:
    """A feature's coordinates; DataError for cells that do not fit its schema."""
    if isinstance(column, CategoricalColumn):
        cells = data.text(column.name)
        if column.missing == "refuse":
            _present(data, column.name, cells, 'fill them, or set missing = "CATEGORY" on the column')
        else:
            cells = np.where(table.is_empty(cells), column.missing, cells)
        index = _indices(data, column.name, cells, column.categories, "categories")
        return [np.where(index == c, 1, -1).astype(np.float32) for c in range(len(column.categories))]
    values, empty = data.numbers(column.name)
    if empty.any():
        if column.missing == "refuse":
            raise _empty(data, column.name, empty, "fill them, or set missing = NUMBER (a public one) on the column")
        values = np.where(empty, column.missing, values)
    return [_scale(values, column, data.file)]


def encode_target(data: table.Table, target: TargetColumn) -> Targets:
    """The targets; DataError for cells that do not fit their schema."""
    way_out = "a record without a target cannot be trained on; fill it or take the record out"
    if target.classes is not None:
        cells = _present(data, target.name, data.text(target.name), way_out)
        return _indices(data, target.name, cells, target.classes, "classes")
    if target.low is None or target.high is None:
        raise ConfigError(f"data.target {target.name!r} needs either classes or both low and high")
    values, empty = data.numbers(target.name)
    if empty.any():
        raise _empty(data, target.name, empty, way_out)
    return _scale(values, NumericColumn(name=target.name, low=target.low, high=target.high), data.file)


def _scale(values: npt.NDArray[np.float64], column: NumericColumn, source: str) -> npt.NDArray[np.float32]:
    outside = int(np.count_nonzero((values < column.low) | (values > column.high)))
    if outside:
        _log.info(
            "%s, column %r: %d of %d values outside its public range [%g, %g] were clipped to it "
            "(this count is private to the site)",
            *(source, column.name, outside, len(values), column.low, column.high),
        )
    return scaled(values, column).astype(np.float32)


def _indices(
    data: table.Table, name: str, cells: npt.NDArray[np.object_], known: tuple[str, ...], key: str
) -> npt.NDArray[np.int64]:
    position = {label: index for index, label in enumerate(known)}
    index = np.fromiter((position.get(cell, -1) for cell in cells), dtype=np.int64, count=len(cells))
    if (unknown := index < 0).any():
        found = sorted({str(cell) for cell in cells[unknown]})
        more = f" (and {len(found) - 3} other values)" if len(found) > 3 else ""
        raise DataError(
            f"{data.file}, column {name!r}: expected one of {list(known)}, got {', '.join(map(repr, found[:3]))}{more} "
            f"in {table.rows_of(unknown)}; correct the file, recode it ([data] in site.toml), or add what is publicly "
            f"known to occur to {key}"
        )
    return index


def _present(data: table.Table, name: str, cells: npt.NDArray[np.object_], way_out: str) -> npt.NDArray[np.object_]:
    if (empty := table.is_empty(cells)).any():
        raise _empty(data, name, empty, way_out)
    return cells


def _empty(data: table.Table, name: str, empty: npt.NDArray[np.bool_], way_out: str) -> DataError:
    return DataError(
        f"{data.file}, column {name!r}: {int(empty.sum())} empty cell(s), in {table.rows_of(empty)}; {way_out}"
    )
