"""CSV and Parquet in, columns of text or numbers out; every fault of the file is a DataError.

Rows are counted from 1, the first record after the header; blank lines of a CSV do not count. CSV is
UTF-8, comma-separated, with a header; all cells are read as text and turned into numbers here, so that an error can
name the row and the value. Messages hold values of the file: they are for the site's own screen, never for the wire.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qfed.errors import DataError, MissingExtra

EMPTY_NUMBER = ("", "na", "n/a", "nan", "null", "none")
"""What counts as an empty cell in a column of numbers, in any case; in a column of text only the empty cell does."""


def arrow(module: str) -> Any:
    """A module of pyarrow, imported when a file is first read: pyarrow is an extra, and slow to import."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise MissingExtra("pyarrow", "client") from None


@dataclass(frozen=True)
class Table:
    """Some columns of a file."""

    file: str
    rows: int
    columns: dict[str, Any]

    def text(self, name: str) -> npt.NDArray[np.object_]:
        """The column as stripped text (N,), None for an empty cell."""
        pa, pc = arrow("pyarrow"), arrow("pyarrow.compute")
        values = pc.utf8_trim_whitespace(self._as_text(name, pa, pc))
        return np.asarray(
            pc.if_else(pc.equal(values, ""), None, values).to_numpy(zero_copy_only=False), dtype=np.object_
        )

    def numbers(self, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """The column as float64 (N,), and which cells are empty; raises DataError for text and infinities."""
        pa, pc = arrow("pyarrow"), arrow("pyarrow.compute")
        column = self.columns[name]
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_decimal(column.type):
            values = pc.cast(column, pa.float64(), safe=False)
            bad = np.zeros(self.rows, dtype=np.bool_)
        else:
            text = pc.utf8_trim_whitespace(self._as_text(name, pa, pc))
            text = pc.if_else(pc.is_in(pc.utf8_lower(text), value_set=pa.array(EMPTY_NUMBER)), None, text)
            try:
                values, bad = pc.cast(text, pa.float64()), np.zeros(self.rows, dtype=np.bool_)
            except pa.ArrowInvalid:
                values, bad = None, np.array([cell is not None and not _is_number(cell) for cell in text.to_pylist()])
        if bad.any():
            raise DataError(
                f"{self.file}, column {name!r}: expected numbers, got {self.cell(name, bad)!r} in {rows_of(bad)}; "
                'correct the file, or make it a column of kind = "categorical"'
            )
        array = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
        if (infinite := np.isinf(array)).any():
            raise DataError(
                f"{self.file}, column {name!r}: expected finite numbers, got {self.cell(name, infinite)!r} in "
                f"{rows_of(infinite)}; correct the file, or leave the cells empty and set the column's missing value"
            )
        return array, np.isnan(array)

    def recoded(self, name: str, codes: Mapping[str, str]) -> Any:
        """The column as text, with `codes` in place of the values that they stand for."""
        pa = arrow("pyarrow")
        cells = [None if cell is None else codes.get(cell, cell) for cell in self.text(name)]
        return pa.array(cells, pa.string())

    def converted(self, name: str, factor: float, offset: float) -> Any:
        """The column as numbers in another unit."""
        values, empty = self.numbers(name)
        return arrow("pyarrow").array(values * factor + offset, mask=empty)

    def cell(self, name: str, where: npt.NDArray[np.bool_]) -> Any:
        """The file's own value in the first row of `where`."""
        return self.columns[name][int(np.flatnonzero(where)[0])].as_py()

    def _as_text(self, name: str, pa: Any, pc: Any) -> Any:
        column = self.columns[name]
        try:
            return pc.cast(column, pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(
                f"{self.file}, column {name!r}: expected text or numbers, got the type {column.type}; "
                "write the column as text or numbers"
            ) from None


def is_empty(cells: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    """Which cells of a column of text are empty."""
    return np.fromiter((cell is None for cell in cells), dtype=np.bool_, count=len(cells))


def rows_of(where: npt.NDArray[np.bool_]) -> str:
    """ "row 3", or "rows 3, 8, 9 and 4 more": the first few rows of a mask, from 1."""
    index = np.flatnonzero(where) + 1
    shown = ", ".join(str(row) for row in index[:3])
    more = f" and {len(index) - 3} more" if len(index) > 3 else ""
    return f"row{'s' if len(index) > 1 else ''} {shown}{more}"


def header(path: str) -> list[tuple[str, Any]]:
    """Names and types of a file's columns, in order; a CSV's types are guessed by pyarrow from its first block."""
    pa = arrow("pyarrow")
    if not Path(path).exists():
        raise DataError(f"there is no file {path}; check data.source")
    if not Path(path).is_file():
        raise DataError(f"{path} is not a file; data.source takes one .csv or .parquet file")
    try:
        if path.endswith(".parquet"):
            schema = arrow("pyarrow.parquet").read_schema(path)
        else:
            with arrow("pyarrow.csv").open_csv(path) as reader:
                schema = reader.schema
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    return [(field.name, field.type) for field in schema]


def read(path: str, names: Sequence[str], way_out: str = "correct data.columns, data.target or data.column") -> Table:
    """The columns `names` of a .csv or .parquet file; raises DataError for a file that lacks them or has no rows."""
    pa = arrow("pyarrow")
    present = [name for name, _ in header(path)]
    require(path, present, names, way_out)
    try:
        if path.endswith(".parquet"):
            table = arrow("pyarrow.parquet").read_table(path, columns=list(names))
        else:
            csv = arrow("pyarrow.csv")
            table = csv.read_csv(
                path,
                parse_options=csv.ParseOptions(newlines_in_values=True),
                convert_options=csv.ConvertOptions(
                    include_columns=list(names), column_types={name: pa.string() for name in names}
                ),
            )
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    if table.num_rows == 0:
        raise DataError(f"{path} has a header but zero rows; there is nothing to train on, check data.source")
    return Table(path, table.num_rows, {name: table.column(name).combine_chunks() for name in names})


def require(path: str, present: Sequence[str], names: Sequence[str], way_out: str) -> None:
    """DataError unless every one of `names` is `present`, once."""
    if doubled := sorted({name for name in names if present.count(name) > 1}):
        raise DataError(
            f"{path}: column names must be unique, but {_quoted(doubled)} occur{'s' if len(doubled) == 1 else ''} more "
            "than once in its header; rename the columns in the file"
        )
    missing = [name for name in names if name not in present]
    if not missing:
        return
    near = {name: difflib.get_close_matches(name, present, 1) for name in missing}
    hints = [f"did you mean {match[0]!r} for {name!r}?" for name, match in near.items() if match]
    if len(present) == 1 and any(sign in present[0] for sign in ";\t|"):
        hints = ["its header is one single column; the file must be comma-separated"]
    shown = f"{_quoted(present[:12])}{', ...' if len(present) > 12 else ''}"
    raise DataError(
        f"{path} lacks the column{'s' * (len(missing) > 1)} {_quoted(missing)}; "
        f"{' '.join(hints) if hints else f'it has {shown}; {way_out}'}"
    )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _unreadable(path: str, error: Exception) -> DataError:
    kind = "Parquet" if path.endswith(".parquet") else "UTF-8 CSV with commas and a header"
    return DataError(f"cannot read {path} as {kind}: {str(error).splitlines()[0]}; write the file again in that form")


def _is_number(cell: str) -> bool:
    # Arrow's own rule, asked again cell by cell once the whole column has failed.
    pa = arrow("pyarrow")
    try:
        arrow("pyarrow.compute").cast(pa.scalar(cell), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
