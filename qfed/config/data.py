"""Which records there are and what their columns mean."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Tag, model_validator

from qfed.config.section import Fraction, Number, Positive, Section

EMBEDDED = ("breast_cancer", "digits", "wine")


def _different(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) < max(len(labels), 2):
        raise ValueError(f"expected at least two labels, each once, got {list(labels)}")
    return labels


Labels = Annotated[tuple[str, ...], AfterValidator(_different)]


class NumericColumn(Section):
    """A numeric feature and its public range; values are scaled to [-1, 1] by it and clipped to it."""

    name: str
    """Name of the column in the file."""
    kind: Literal["numeric"] = "numeric"
    """Marks the column as a number."""
    low: Number
    """Smallest value that can occur, from public knowledge (a data dictionary), never from the data."""
    high: Number
    """Largest value that can occur, from public knowledge."""
    missing: Literal["refuse"] | Number = "refuse"
    """What an empty cell becomes: "refuse" stops with an error, a number is filled in (and must be public)."""
    scale: Literal["linear", "log"] = "linear"
    """How the range is spread over [-1, 1]: evenly, or by orders of magnitude ("log"), for sizes, counts and rates
    most of which lie near the low end. Needs low >= 0; where low is 0, a fiftieth of the range is added before the
    logarithm."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"column {self.name!r} needs low < high, got low={self.low}, high={self.high}")
        if self.scale == "log" and self.low < 0:
            raise ValueError(f'column {self.name!r}: scale="log" needs low >= 0, got low={self.low}; use "linear"')
        if self.missing != "refuse" and not self.low <= self.missing <= self.high:
            raise ValueError(
                f"column {self.name!r}: missing={self.missing} lies outside its range [{self.low}, {self.high}]"
            )
        return self


class CategoricalColumn(Section):
    """A categorical feature; each listed category becomes one coordinate in {-1, 1}."""

    name: str
    """Name of the column in the file."""
    kind: Literal["categorical"] = "categorical"
    """Marks the column as a category; a column with `categories` is one without saying so."""
    categories: Labels
    """All categories that can occur, from public knowledge; any other value is refused."""
    missing: Literal["refuse"] | str = "refuse"
    """What an empty cell becomes: "refuse" stops with an error, else one of the categories."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.missing != "refuse" and self.missing not in self.categories:
            raise ValueError(
                f"column {self.name!r}: missing={self.missing!r} is none of its categories {list(self.categories)}"
            )
        return self


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", "categorical" if "categories" in value else "numeric"))
    return str(getattr(value, "kind", "numeric"))


Column = Annotated[
    Annotated[NumericColumn, Tag("numeric")] | Annotated[CategoricalColumn, Tag("categorical")], Discriminator(_kind)
]


class TargetColumn(Section):
    """What is predicted: classes (classification) or a number with its public range (regression)."""

    name: str
    """Name of the column in the file."""
    classes: Labels | None = None
    """All class labels, as text, from public knowledge; leave out for regression."""
    low: Number | None = None
    """Regression: smallest possible value, public."""
    high: Number | None = None
    """Regression: largest possible value, public."""

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        given = [end for end in (self.low, self.high) if end is not None]
        if (self.classes is None) != (len(given) == 2) or (self.classes is not None and given):
            raise ValueError("a target needs either classes = [...] (classification) or both low and high (regression)")
        if given and not given[0] < given[1]:
            raise ValueError(f"the target needs low < high, got low={self.low}, high={self.high}")
        return self


class DataConfig(Section):
    """Which records there are, what their columns mean, and how a simulation deals them to sites."""

    source: str = "breast_cancer"
    """An embedded data set (breast_cancer, digits, wine) or the path of a .csv or .parquet file."""
    columns: tuple[Column, ...] = ()
    """The features of a file, in order, each with its public range or categories; embedded sets bring their own."""
    target: TargetColumn | None = None
    """The column to predict, for a file; embedded sets bring their own."""
    partition: Literal["iid", "dirichlet", "column"] = "iid"
    """How a simulation deals records to sites: shuffled evenly, label-skewed, or by the values of a column."""
    alpha: Positive = 0.5
    """Dirichlet concentration for partition = "dirichlet"; smaller is more skewed."""
    column: str | None = None
    """The column whose values name the sites, for partition = "column" (a file's column; it is not a feature)."""
    features: Literal["values", "gradient_histogram"] = "values"
    """What a model gets of a record: its scaled values, or (square images) a histogram of gradient directions, which is
    computed from the record alone and costs no privacy."""
    test_fraction: Fraction = 0.2
    """Share of every site's records held out at that site for evaluation."""

    @model_validator(mode="after")
    def _file_has_schema(self) -> Self:
        if self.source not in EMBEDDED:
            if Path(self.source).suffix not in (".csv", ".parquet"):
                near = difflib.get_close_matches(self.source, EMBEDDED, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"source={self.source!r} is neither an embedded data set ({', '.join(EMBEDDED)}) "
                    f"nor a .csv or .parquet file{hint}"
                )
            if not self.columns or self.target is None:
                raise ValueError(
                    f"source={self.source!r} is a file, so data.columns and data.target must say what is in it "
                    "(qfed config init --from FILE writes a first draft)"
                )
        elif self.columns or self.target is not None:
            raise ValueError(f"the embedded data set {self.source!r} brings its own columns and target; leave them out")
        if self.target is not None:
            roles = [*(column.name for column in self.columns), self.target.name]
            roles += [self.column] if self.partition == "column" and self.column is not None else []
            if twice := sorted({name for name in roles if roles.count(name) > 1}):
                raise ValueError(
                    f"column names {twice} are used twice; a column is one feature, the target or the sites' names"
                )
        if self.partition == "column" and self.column is None:
            raise ValueError('partition = "column" needs data.column, the column whose values name the sites')
        if self.partition == "column" and self.source in EMBEDDED:
            raise ValueError(f'partition = "column" needs a file; {self.source!r} has no column that names sites')
        return self
