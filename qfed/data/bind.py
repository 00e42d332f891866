"""A deployed site's own table, as records of a run: renamed, recoded, checked against the run's schema, split.

A run brings its schema (data.columns and data.target, or an embedded data set's); where the records lie is the site's
own matter. Which records are held out is decided for each one by itself:

    held out  <=>  BLAKE3(label, x, y) / 2^64 < test_fraction

so it depends on no other record and on no order of rows: a record that is held out in one round is never trained on in
another, twins stay together, and a record more or less changes nothing for the others, as differential privacy's
neighbours ask. `label` is the data set's name, so it is the same in every run of the same columns.
Shapes  x (N, F) float32, y (N,)      Errors  DataError, MissingExtra, ConfigError for an environment that lacks the URL
"""

from __future__ import annotations

import numpy as np
from blake3 import blake3

from qfed.config import DataBinding, DataConfig, environment
from qfed.data import table
from qfed.data.load import columns_of, encode
from qfed.data.records import Dataset, Records, SiteData
from qfed.data.sql import read_sql
from qfed.errors import ConfigError, DataError

_WAY_OUT = "correct the table, or [data] rename in site.toml"


def load_bound(binding: DataBinding, config: DataConfig) -> Dataset:
    """The records of a site's table under a run's schema; `binding.source` is an absolute path by now."""
    columns, target = columns_of(config)
    return encode(read_bound(binding, [*(column.name for column in columns), target.name]), config)


def read_bound(binding: DataBinding, names: list[str]) -> table.Table:
    """The run's columns `names` of the site's table, under the run's names and codes."""
    columns = {binding.site_name(name): name for name in names}
    if binding.source is not None:
        data = table.read(binding.source, list(columns), way_out=_WAY_OUT)
        data = table.Table(data.file, data.rows, {name: data.columns[mine] for mine, name in columns.items()})
    else:
        data = read_sql(_url(binding), columns, table=binding.table, query=binding.query, way_out=_WAY_OUT)
    for name, codes in binding.recode.items():
        if name in data.columns:
            data.columns[name] = data.recoded(name, codes)
    for name, conversion in binding.convert.items():
        if name in data.columns:
            data.columns[name] = data.converted(name, conversion.factor, conversion.offset)
    return data


def hold_out(records: Records, fraction: float, label: str) -> SiteData:
    """Split a site's records into those it trains on and those it holds out; DataError if none is left to train on."""
    keyed = blake3(label.encode(), derive_key_context="qfed held-out records 1").digest()
    limit = round(fraction * 2**64)
    held = np.fromiter(
        (
            int.from_bytes(blake3(x.tobytes() + y.tobytes(), key=keyed).digest(8), "big") < limit
            for x, y in zip(np.ascontiguousarray(records.x), records.y, strict=True)
        ),
        dtype=np.bool_,
        count=len(records),
    )
    if held.all():
        raise DataError(f"all {len(records)} record(s) of the table are held out; bind a table with more records")
    return SiteData(records.take(np.flatnonzero(~held)), records.take(np.flatnonzero(held)), label)


def _url(binding: DataBinding) -> str:
    url = environment(binding.url_env or "")
    if not url:
        raise ConfigError(
            f"the environment variable {binding.url_env} is not set; it must hold the database's URL where the agent "
            "is started"
        )
    return url
