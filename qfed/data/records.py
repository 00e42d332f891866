"""Records and what their columns mean: the values that loading makes and dealing splits.

    x[n, f] in [-1, 1] (float32),   y[n] = class index (int64) or the target in [-1, 1] (float32)

Every coordinate is scaled by a public range, so no statistic of private data is in it.
Shapes  x (N, F), y (N,)      Errors  ShapeError for arrays that do not fit each other, DataError for a bad file
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from qfed.config import Column
from qfed.errors import DataError, ShapeError

Features = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64] | npt.NDArray[np.float32]
Task = Literal["classification", "regression"]
_COLUMNS: TypeAdapter[tuple[Column, ...]] = TypeAdapter(tuple[Column, ...])


@dataclass(frozen=True)
class Schema:
    """What the coordinates of a record mean; public, the same at every site."""

    features: tuple[str, ...]
    task: Task
    classes: tuple[str, ...] | None
    target: str
    target_range: tuple[float, float] | None = None
    """Regression: the public range that the target is scaled by, so that a model can answer in the target's units."""
    columns: tuple[Column, ...] = field(default=(), compare=False)
    """The table's columns that the features are made of, so that a stored model reads a table by itself."""
    made: Literal["values", "gradient_histogram"] = field(default="values", compare=False)
    """How the features are made of the columns (`data.features`)."""

    @property
    def inputs(self) -> int:
        """Coordinates of a record."""
        return len(self.features)

    @property
    def outputs(self) -> int:
        """What a model returns for a record: one logit a class, or one value."""
        return len(self.classes) if self.classes is not None else 1

    def to_dict(self) -> dict[str, Any]:
        """The schema in JSON's types, as stored beside a model."""
        return {
            "features": list(self.features),
            "task": self.task,
            "classes": None if self.classes is None else list(self.classes),
            "target": self.target,
            "target_range": None if self.target_range is None else list(self.target_range),
            "columns": [column.model_dump(mode="json") for column in self.columns],
            "made": self.made,
        }

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        classes, ends = tree["classes"], tree.get("target_range")
        return cls(
            tuple(tree["features"]),
            tree["task"],
            None if classes is None else tuple(classes),
            tree["target"],
            None if ends is None else (float(ends[0]), float(ends[1])),
            _COLUMNS.validate_python(tree.get("columns", ())),
            tree.get("made", "values"),
        )


@dataclass(frozen=True, eq=False)
class Records:
    """x (N, F) float32 in [-1, 1]; y (N,) class index int64, or target float32 in [-1, 1]."""

    x: Features
    y: Targets

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.y.ndim != 1 or len(self.x) != len(self.y):
            raise ShapeError(
                f"records are x (N, F) and y (N,), got x {self.x.shape} and y {self.y.shape}; give one y a record"
            )

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: npt.NDArray[np.intp]) -> Records:
        """The records at `index`, in that order."""
        return Records(self.x[index], self.y[index])


@dataclass(frozen=True, eq=False)
class Dataset:
    """All records of a source; `site_of[n]` names the site of record n when a column decides it."""

    schema: Schema
    records: Records
    site_of: npt.NDArray[np.str_] | None = None


_ARRAYS = ("train_x", "train_y", "test_x", "test_y")


@dataclass(frozen=True, eq=False)
class SiteData:
    """One site's records: those it trains on, and those it holds out."""

    train: Records
    test: Records
    name: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz (arrays only, no pickle), whole or not at all."""
        target = Path(path)
        if target.suffix != ".npz":
            raise DataError(f"a site's records are saved as .npz, got path={str(target)!r}; name it *.npz")
        partial = target.with_name(target.name + ".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                train_x=self.train.x,
                train_y=self.train.y,
                test_x=self.test.x,
                test_y=self.test.y,
                name=np.array(self.name, dtype=np.str_),
            )
        partial.replace(target)

    @classmethod
    def load(cls, path: str | os.PathLike[str], schema: Schema) -> Self:
        """Read what `save` wrote and check it against `schema`; raises DataError."""
        try:
            # Opened here: numpy leaves a file that it opened itself open when the archive is broken.
            with Path(path).open("rb") as file:
                archive = np.load(file, allow_pickle=False)
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise ValueError("a single array")
                train_x, train_y, test_x, test_y = (archive[key] for key in _ARRAYS)
                name = str(archive["name"])
        except OSError as error:
            raise DataError(
                f"cannot read the site's records {path}: {error.strerror or error}; save them again"
            ) from None
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} is not a site's records as SiteData.save writes them: {error}; save them again"
            ) from None
        for x, y in ((train_x, train_y), (test_x, test_y)):
            _check(x, y, schema, str(path))
        return cls(Records(train_x, train_y), Records(test_x, test_y), name)


def _check(x: npt.NDArray[Any], y: npt.NDArray[Any], schema: Schema, path: str) -> None:
    kind = np.dtype(np.int64 if schema.classes is not None else np.float32)
    if x.dtype != np.float32 or y.dtype != kind or x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
        raise DataError(
            f"{path} holds x {x.dtype}{x.shape} and y {y.dtype}{y.shape}, expected x float32(N, F) and y {kind}(N,) "
            f"for {schema.task}; save the site's records again"
        )
    if x.shape[1] != schema.inputs:
        raise DataError(
            f"{path} holds {x.shape[1]} features, but the schema has {schema.inputs}; was it saved for another run?"
        )
    low, high = (0, schema.outputs - 1) if schema.classes is not None else (-1, 1)
    # Written so that NaN, which compares false with everything, is refused as well.
    if not (np.all(np.abs(x) <= 1) and np.all((y >= low) & (y <= high))):
        raise DataError(
            f"{path} holds values outside [-1, 1], or targets outside [{low}, {high}]; save the site's records again"
        )
