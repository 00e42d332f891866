"""Columns of an SQL table or query, through SQLAlchemy; nothing is ever written.

SQLite files are opened read-only (mode=ro), PostgreSQL transactions are read-only, and every transaction is rolled
back; that the user of the URL may only read is for the database to say. Drivers other than SQLite's are the user's to
install. Rows come in no particular order, and nothing may depend on it.
Cost  one query; rows are fetched in stretches of 10,000        Errors  DataError, MissingExtra; a URL is never printed
"""

from __future__ import annotations

import decimal
import importlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qfed.data.table import Table, arrow, require
from qfed.errors import DataError, MissingExtra

_STRETCH = 10_000


def read_sql(url: str, columns: Mapping[str, str], *, table: str | None, query: str | None, way_out: str) -> Table:
    """The columns of a table or query: name in the database -> name in the result."""
    try:
        sql = importlib.import_module("sqlalchemy")
    except ModuleNotFoundError:
        raise MissingExtra("SQLAlchemy", "sql") from None
    origin = f"table {table}" if table is not None else "the query"
    try:
        engine = _engine(sql, url)
        try:
            with engine.connect().execution_options(stream_results=True) as connection:
                names, rows = _rows(sql, connection, columns, table, query, origin, way_out)
                connection.rollback()
        finally:
            engine.dispose()
    except sql.exc.NoSuchModuleError as error:
        raise DataError(f"the database's URL names a kind that SQLAlchemy does not know ({error})") from None
    except ModuleNotFoundError as error:
        raise DataError(
            f"the database needs the driver {error.name!r}, which is not installed; install it beside qfed"
        ) from None
    except (sql.exc.SQLAlchemyError, sqlite3.Error) as error:
        cause = getattr(error, "orig", None) or error
        first = str(cause).splitlines()[0] if str(cause) else ""
        raise DataError(f"the database does not give {origin}: {type(cause).__name__}: {first}") from None
    if not rows:
        raise DataError(f"{origin} has zero rows; there is nothing to train on")
    values = zip(*rows, strict=True)
    found = {columns[name]: _column(name, list(cells), origin) for name, cells in zip(names, values, strict=True)}
    return Table(origin, len(rows), found)


def _engine(sql: Any, text: str) -> Any:
    try:
        url = sql.make_url(text)
    except sql.exc.ArgumentError:
        raise DataError(
            "what stands in the environment variable is no database URL; SQLAlchemy's form is "
            "driver://user:password@host/database, or sqlite:////folder/file.db"
        ) from None
    if url.get_backend_name() != "sqlite":
        return sql.create_engine(url, execution_options={"postgresql_readonly": True}, poolclass=sql.pool.NullPool)
    file = Path(url.database or "")
    if not file.is_file():
        raise DataError(f"there is no SQLite file {str(file)!r}; a relative path is taken from where the agent runs")
    opened = f"{file.resolve().as_uri()}?mode=ro"
    return sql.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(opened, uri=True), poolclass=sql.pool.NullPool
    )


def _rows(
    sql: Any,
    connection: Any,
    columns: Mapping[str, str],
    table: str | None,
    query: str | None,
    origin: str,
    way_out: str,
) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
    names = list(columns)
    if table is not None:
        schema, _, name = table.rpartition(".")
        known = [str(column["name"]) for column in sql.inspect(connection).get_columns(name, schema or None)]
        require(origin, known, names, way_out)
        chosen = sql.table(name, *(sql.column(column) for column in names), schema=schema or None)
        result = connection.execute(sql.select(*(chosen.c[column] for column in names)))
    else:
        result = connection.execute(sql.text(query))
        require(origin, [str(key) for key in result.keys()], names, way_out)  # noqa: SIM118  a method of results
        result = result.columns(*names)
    return names, [tuple(row) for part in result.partitions(_STRETCH) for row in part]


def _column(name: str, cells: list[Any], origin: str) -> Any:
    """Numbers as float64, all else as text; what a database calls a number may come as one of several types."""
    pa = arrow("pyarrow")
    kept = [cell for cell in cells if cell is not None]
    if kept and all(isinstance(cell, int | float | decimal.Decimal) and not isinstance(cell, bool) for cell in kept):
        return _numbers(pa, cells, kept)
    if bad := next((cell for cell in kept if isinstance(cell, bytes | memoryview)), None):
        raise DataError(
            f"{origin}, column {name!r}: expected text or numbers, got the type {type(bad).__name__}; read a column of "
            "text or numbers"
        )
    return pa.array([None if cell is None else _text(cell) for cell in cells], pa.string())


def _numbers(pa: Any, cells: list[Any], kept: list[Any]) -> Any:
    """Whole numbers stay whole, so that a category 1 reads "1" and not "1.0"."""
    if all(isinstance(cell, int) and abs(cell) < 2**63 for cell in kept):
        return pa.array(cells, pa.int64())
    return pa.array([None if cell is None else float(cell) for cell in cells], pa.float64())


def _text(cell: Any) -> str:
    return str(cell).lower() if isinstance(cell, bool) else str(cell)  # as Arrow writes them
