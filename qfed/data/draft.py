"""A first draft of the [data] section for a user's file: names and types, nothing that the values would tell.

Ranges, categories and classes stay marked places: taken from the data they would be a release without noise (one record
can move a minimum). The reader refuses the draft until a person has filled them in.
"""

from __future__ import annotations

import os
from typing import Any

import tomli_w

from qfed.data import table
from qfed.errors import ConfigError, DataError

PLACE = "FILL IN"
_LOW = f"{PLACE}: smallest value that can occur, from public knowledge"
_HIGH = f"{PLACE}: largest value that can occur, from public knowledge"
_CATEGORIES = f'{PLACE}: a list of all that can occur, from public knowledge, such as ["a", "b"]'


def draft_schema(path: str | os.PathLike[str]) -> str:
    """The TOML of [data], [data.target] and one [[data.columns]] a column; the last column is taken for the target."""
    file = os.fspath(path)
    if not file.endswith((".csv", ".parquet")):
        raise ConfigError(f"a draft is made from a .csv or .parquet file, got {file!r}; convert it first")
    *features, target = table.header(file)
    if not features:
        raise DataError(
            f"{file} has one single column, {target[0]!r}; expected features and a target (is it comma-separated?)"
        )
    lines = [
        f"# A draft from the names and types of {os.path.basename(file)!r}; its values were not looked at for ranges.",
        f"# Replace every {PLACE!r} by what is publicly known to be possible (a data dictionary, physics),",
        "# never by what the data happen to hold: a range taken from the records would give private values away.",
        "[data]",
        _entry("source", file),
        "",
        "# The column to predict: the last one is a guess. Keep classes (classification) or low and high (regression).",
        "[data.target]",
        _entry("name", target[0]),
        *([_entry("low", _LOW), _entry("high", _HIGH)] if _real(target[1]) else [_entry("classes", _CATEGORIES)]),
    ]
    for name, kind in features:
        lines += ["", *_column(name, kind)]
    return "\n".join(lines) + "\n"


def _column(name: str, kind: Any) -> list[str]:
    pa = table.arrow("pyarrow")
    start = ["[[data.columns]]", _entry("name", name)]
    if _real(kind) or pa.types.is_integer(kind):
        return [*start, _entry("kind", "numeric"), _entry("low", _LOW), _entry("high", _HIGH)]
    categorical = [*start, _entry("kind", "categorical"), _entry("categories", _CATEGORIES)]
    if (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_dictionary(kind)
    ):
        return categorical
    return [f"# type {kind}: convert it to a number or a category in the file, or take this column out", *categorical]


def _real(kind: Any) -> bool:
    types = table.arrow("pyarrow").types
    return bool(types.is_floating(kind) or types.is_decimal(kind))


def _entry(key: str, value: str) -> str:
    return tomli_w.dumps({key: value}).rstrip("\n")
