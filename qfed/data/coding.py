"""Mixed tables as bits and back, by public ranges, thresholds and categories alone; nothing is fitted to the records.

    numeric      level = thresholds at or below x, in [-1, 1]     -> its word (code.py)
    categorical  level = number of the category                   -> its word
    target       class (or group of classes), or a number         -> its word, last in the record
    image        mean of each block of `pool` x `pool` pixels, then as numeric

    project   records -> the records that are coded: chosen columns, pooled, grouped classes, values as they are
    encode    records -> bits;      decode   bits -> records of `schema`, each number within its bin

So encode(decode(bits)) = bits for every valid word, and a model for `schema` can be trained on decoded records and
tested on projected ones.
Shapes  records x (N, F), y (N,); bits (N, n) in {0, 1}      Cost  O(N n)      Errors  ConfigError, ShapeError
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from qfed.config import CategoricalColumn, CodingConfig, Column, DataConfig, NumericColumn, TargetColumn
from qfed.data.code import Bits, Code, Levels, code_of
from qfed.data.load import columns_of, schema_of
from qfed.data.records import Features, Records, Schema, Targets
from qfed.data.scaling import scaled, unscaled
from qfed.errors import ConfigError, ShapeError

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Numeric:
    """A number's thresholds: `edges` (L + 1,) of its bins from -1 to 1."""

    column: NumericColumn
    code: Code
    edges: Values

    def levels(self, x: Values) -> Levels:
        return np.searchsorted(self.edges[1:-1], x, side="right").astype(np.int64)

    def values(self, levels: Levels, rng: np.random.Generator | None) -> Values:
        # Off the very edges, where rounding to float32 would put a value into the next bin.
        share = np.full(len(levels), 0.5) if rng is None else np.clip(rng.random(len(levels)), 1e-5, 1 - 1e-5)
        return self.edges[levels] * (1 - share) + self.edges[levels + 1] * share


@dataclass(frozen=True, eq=False)
class _Category:
    column: CategoricalColumn
    code: Code


@dataclass(frozen=True)
class Decoded:
    """Records of a coding's schema, and how many words of theirs stood for nothing and were repaired."""

    records: Records
    repaired: int


@dataclass(frozen=True, eq=False)
class Coding:
    """The coding of one configuration; `of` makes it."""

    schema: Schema
    """Of projected and decoded records."""
    columns: tuple[_Numeric | _Category, ...]
    target: _Numeric | Code
    values: Literal["uniform", "centre"]
    _picked: npt.NDArray[np.int64]
    """Coordinates of the configured records that are coded, before pooling."""
    _pool: int
    _groups: Levels | None
    """Group of each class, -1 for a class in none; None without groups."""

    @classmethod
    def of(cls, data: DataConfig, coding: CodingConfig) -> Self:
        """The coding of a run's records; ConfigError for names, thresholds or groups that the schema does not have."""
        if data.features != "values":
            raise ConfigError(
                f"records are coded from their values, got data.features={data.features!r}, from which no record "
                'can be made again; use data.features = "values"'
            )
        columns, target = columns_of(data)
        picked, chosen = _choose(columns, coding)
        if coding.pool > 1:
            chosen = _pooled(chosen, coding)
        known = {column.name for column in chosen} | {target.name}
        if unknown := sorted(set(coding.thresholds) - known):
            raise ConfigError(f"coding.thresholds names {unknown}, but what is coded is {sorted(known)}")
        groups, classes = _grouped(target, coding)
        if classes is not None:
            aim: _Numeric | Code = code_of(target.name, classes, coding.categories)
        elif target.low is None or target.high is None:
            raise ConfigError(f"data.target {target.name!r} needs either classes or both low and high")
        else:
            aim = _numeric(NumericColumn(name=target.name, low=target.low, high=target.high), coding)
        coded = tuple(_numeric(c, coding) if isinstance(c, NumericColumn) else _category(c, coding) for c in chosen)
        whole = schema_of(data)
        features = [name for column in coded for name in _features(column)]
        schema = Schema(tuple(features), whole.task, classes, whole.target, whole.target_range)
        return cls(schema, coded, aim, coding.values, picked, coding.pool, groups)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bits, the target's last."""
        return tuple(name for column in self.columns for name in column.code.names) + self.target_names

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the target's bits."""
        return self._target_code.names

    @property
    def patterns(self) -> Bits:
        """The target's words (K, t), one for each class (or bin) that can occur."""
        return self._target_code.words

    @property
    def words(self) -> tuple[tuple[int, Bits], ...]:
        """Of every column, the target last: its first bit, and its words (L, b)."""
        found, at = [], 0
        for code in (*(column.code for column in self.columns), self._target_code):
            found.append((at, code.words))
            at += code.size
        return tuple(found)

    @property
    def _target_code(self) -> Code:
        return self.target if isinstance(self.target, Code) else self.target.code

    def project(self, records: Records) -> Records:
        """The records as they are coded, but with their own values; those of a class in no group are left out."""
        x, y = records.x[:, self._picked], records.y
        if self._pool > 1:
            side = math.isqrt(x.shape[1])
            blocks = x.reshape(len(x), side // self._pool, self._pool, side // self._pool, self._pool)
            x = blocks.mean(axis=(2, 4), dtype=np.float64).astype(np.float32).reshape(len(x), -1)
        if self._groups is None:
            return Records(x, y)
        group = self._groups[y.astype(np.int64)]
        return Records(x[group >= 0], group[group >= 0])

    def encode(self, records: Records) -> Bits:
        """The bits (N, n) of records of the configured schema (or what is left of them, see `project`)."""
        return self.encode_projected(self.project(records))

    def encode_projected(self, records: Records) -> Bits:
        """The bits (N, n) of records of `schema`."""
        if records.x.shape[1] != self.schema.inputs:
            raise ShapeError(f"records of this coding have {self.schema.inputs} features, got {records.x.shape[1]}")
        words, at = [], 0
        for column in self.columns:
            if isinstance(column, _Numeric):
                levels = column.levels(records.x[:, at].astype(np.float64))
                at += 1
            else:
                width = len(column.column.categories)
                levels = records.x[:, at : at + width].argmax(axis=1)
                at += width
            words.append(column.code.encode(levels))
        aim = self.target
        target = records.y.astype(np.int64) if isinstance(aim, Code) else aim.levels(records.y.astype(np.float64))
        return np.concatenate([*words, self._target_code.encode(target)], axis=1)

    def decode(self, bits: npt.NDArray[np.integer], rng: np.random.Generator | None = None) -> Decoded:
        """Records of `schema` for bits (N, n); `rng` draws where in its bin a number lies (needed for "uniform")."""
        if bits.ndim != 2 or bits.shape[1] != len(self.names) or not np.isin(bits, (0, 1)).all():
            raise ShapeError(f"this coding has bits (N, {len(self.names)}) of 0 and 1, got {bits.shape}")
        if self.values == "centre":
            rng = None
        elif rng is None:
            raise ConfigError('coding.values="uniform" draws values, got rng=None; pass a generator, or use "centre"')
        words, at, repaired = bits.astype(np.uint8), 0, 0
        parts: list[Features] = []
        for column in self.columns:
            levels, wrong = column.code.decode(words[:, at : at + column.code.size])
            at, repaired = at + column.code.size, repaired + wrong
            if isinstance(column, _Numeric):
                parts.append(column.values(levels, rng).astype(np.float32)[:, None])
            else:
                hot = levels[:, None] == np.arange(column.code.levels)
                parts.append(np.where(hot, 1, -1).astype(np.float32))
        levels, wrong = self._target_code.decode(words[:, at:])
        y: Targets = levels if isinstance(self.target, Code) else self.target.values(levels, rng).astype(np.float32)
        return Decoded(Records(np.concatenate(parts, axis=1), y), repaired + wrong)

    def table(self, records: Records) -> Mapping[str, npt.NDArray[np.float64] | npt.NDArray[np.str_]]:
        """Columns in their own units, categories and classes by name, for records of `schema`."""
        found: dict[str, npt.NDArray[np.float64] | npt.NDArray[np.str_]] = {}
        at = 0
        for column in self.columns:
            if isinstance(column, _Numeric):
                found[column.column.name] = unscaled(records.x[:, at].astype(np.float64), column.column)
                at += 1
            else:
                labels = np.array(column.column.categories)
                found[column.column.name] = labels[records.x[:, at : at + len(labels)].argmax(axis=1)]
                at += len(labels)
        if isinstance(self.target, _Numeric):
            found[self.schema.target] = unscaled(records.y.astype(np.float64), self.target.column)
        else:
            found[self.schema.target] = np.array(self.schema.classes)[records.y.astype(np.int64)]
        return found


def _choose(columns: tuple[Column, ...], coding: CodingConfig) -> tuple[npt.NDArray[np.int64], list[Column]]:
    """The columns to code, in the schema's order, and their coordinates."""
    names = [column.name for column in columns]
    if unknown := sorted(set(coding.columns) - set(names)):
        raise ConfigError(f"coding.columns names {unknown}, but the features are {names}")
    picked: list[int] = []
    chosen: list[Column] = []
    at = 0
    for column in columns:
        width = len(column.categories) if isinstance(column, CategoricalColumn) else 1
        if not coding.columns or column.name in coding.columns:
            chosen.append(column)
            picked += range(at, at + width)
        at += width
    return np.array(picked, dtype=np.int64), chosen


def _pooled(columns: list[Column], coding: CodingConfig) -> list[Column]:
    """One column a block; the pixels share one linear range."""
    side, first = math.isqrt(len(columns)), columns[0]
    alike = all(
        isinstance(c, NumericColumn) and (c.low, c.high, c.scale) == (first.low, first.high, "linear")
        for c in columns
        if isinstance(first, NumericColumn)
    )
    if not isinstance(first, NumericColumn) or not alike or side**2 != len(columns) or side % coding.pool:
        raise ConfigError(
            f"coding.pool={coding.pool} takes the means of blocks of a square image whose pixels share one linear "
            f"range and whose side it divides, got {len(columns)} columns; leave pool out"
        )
    blocks = range(side // coding.pool)
    names = [f"block_{row}_{place}" for row in blocks for place in blocks]
    return [NumericColumn(name=name, low=first.low, high=first.high) for name in names]


def _grouped(target: TargetColumn, coding: CodingConfig) -> tuple[Levels | None, tuple[str, ...] | None]:
    if not coding.classes:
        return None, target.classes
    if target.classes is None:
        raise ConfigError(f"coding.classes groups classes, but the target {target.name!r} is a number; leave it out")
    groups = np.full(len(target.classes), -1, np.int64)
    for number, (name, members) in enumerate(coding.classes.items()):
        if unknown := sorted(set(members) - set(target.classes)):
            raise ConfigError(
                f"coding.classes.{name} names {unknown}, but the classes of {target.name!r} are {list(target.classes)}"
            )
        groups[[target.classes.index(member) for member in members]] = number
    return groups, tuple(coding.classes)


def _numeric(column: NumericColumn, coding: CodingConfig) -> _Numeric:
    own = coding.thresholds.get(column.name)
    if own is not None:
        if not all(column.low < value < column.high for value in own):
            raise ConfigError(
                f"coding.thresholds of column {column.name!r} lie within its range ({column.low:g}, {column.high:g}), "
                f"got {list(own)}"
            )
        inner = scaled(np.array(own), column)
    elif coding.levels:
        inner = 2 * np.array(coding.levels) - 1
    else:
        bins = coding.bits + 1 if coding.numeric == "thermometer" else 2**coding.bits
        inner = np.linspace(-1, 1, bins + 1)[1:-1]
    edges = np.concatenate([[-1.0], inner, [1.0]])
    marks = unscaled(edges, column)
    if coding.numeric == "thermometer":
        labels = tuple(f"{mark:.4g}" for mark in marks[1:])
    else:
        labels = tuple(f"{low:.4g}..{high:.4g}" for low, high in pairwise(marks))
    return _Numeric(column, code_of(column.name, labels, coding.numeric), edges)


def _category(column: CategoricalColumn, coding: CodingConfig) -> _Category:
    return _Category(column, code_of(column.name, column.categories, coding.categories))


def _features(column: _Numeric | _Category) -> list[str]:
    if isinstance(column, _Numeric):
        return [column.column.name]
    return [f"{column.column.name}={category}" for category in column.column.categories]
