"""Where a deployed site's records are, and what its columns are called in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from qfed.config.section import Number, Section


class Conversion(Section):
    """value of the run = factor x value of the site + offset, for another unit."""

    factor: Number = 1.0
    """Units of the run for one unit of the site."""
    offset: Number = 0.0
    """What is added after the factor, in units of the run."""

    @model_validator(mode="after")
    def _invertible(self) -> Self:
        if self.factor == 0:
            raise ValueError("factor=0 makes every value the same; give the units of the run for one unit of the site")
        return self


class DataBinding(Section):
    """The site's own table: a file, or an SQL database; read anew when a round needs it, never written."""

    source: str | None = None
    """A .csv or .parquet file, relative to the site's folder; leave out for a database."""
    url_env: str | None = None
    """Name of the environment variable that holds a database's URL (SQLAlchemy's form, with a user who may only read);
    the URL itself stands in no file."""
    table: str | None = None
    """The table or view to read, "schema.table" if need be."""
    query: str | None = None
    """A SELECT to read instead of a table."""
    rename: dict[str, str] = Field(default_factory=dict)
    """The site's column name -> the run's, for columns that are called otherwise here."""
    recode: dict[str, dict[str, str]] = Field(default_factory=dict)
    """The run's column name -> {the site's value -> the run's}; values that are not listed stay as they are."""
    convert: dict[str, Conversion] = Field(default_factory=dict)
    """The run's column name -> {factor, offset}, for numbers in another unit."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.source is None) == (self.url_env is None):
            raise ValueError(
                "the records are in one place: give either source (a .csv or .parquet file) or url_env (a database)"
            )
        if self.source is not None:
            if Path(self.source).suffix not in (".csv", ".parquet"):
                raise ValueError(f"source={self.source!r} is not a .csv or .parquet file; for a database use url_env")
            if self.table is not None or self.query is not None:
                raise ValueError("table and query belong to a database (url_env); leave them out for a file")
        elif (self.table is None) == (self.query is None):
            raise ValueError(f"with url_env={self.url_env!r} give either table or query")
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        runs = list(self.rename.values())
        if twice := sorted({name for name in runs if runs.count(name) > 1}):
            raise ValueError(f"rename gives the name {twice[0]!r} to two columns; a run has each name once")
        return self

    def site_name(self, column: str) -> str:
        """What a run's column is called at this site."""
        return next((mine for mine, theirs in self.rename.items() if theirs == column), column)
