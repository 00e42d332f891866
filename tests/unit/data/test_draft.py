"""The draft holds names and types only, and cannot be run before a person has filled it in."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qfed.config import load_config
from qfed.data import draft_schema, schema_of
from qfed.errors import ConfigError, DataError

TEXT = 'bmi,"the ""ward""",visits,ill\n17.25,north,4123,yes\n93.5,south,7,no\n'


def test_draft_is_toml_with_types_and_no_values(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_text(TEXT, encoding="utf-8")
    text = draft_schema(path)
    data = tomllib.loads(text)["data"]
    assert data["source"] == str(path)
    assert [(c["name"], c["kind"]) for c in data["columns"]] == [
        ("bmi", "numeric"),
        ('the "ward"', "categorical"),
        ("visits", "numeric"),
    ]
    assert data["target"]["name"] == "ill"
    assert "classes" in data["target"]
    body = text.replace(str(path), "")
    for value in ("17.25", "93.5", "4123", "north", "south", "yes"):
        assert value not in body


def test_draft_is_refused_until_filled_in_and_then_runs(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text(TEXT, encoding="utf-8")
    text, file = draft_schema(tmp_path / "patients.csv"), tmp_path / "run.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="FILL IN") as caught:
        load_config(file)
    assert str(caught.value).count("FILL IN") == 6
    filled = []
    for line in text.splitlines():
        key = line.split(" = ")[0]
        value = {"low": "0", "high": "100", "categories": '["north", "south"]', "classes": '["no", "yes"]'}.get(key)
        filled.append(line if value is None else f"{key} = {value}")
    file.write_text("\n".join(filled), encoding="utf-8")
    assert schema_of(load_config(file).data).features == ("bmi", 'the "ward"=north', 'the "ward"=south', "visits")


def test_draft_of_parquet_types(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(
        pa.table({"day": pa.array([1], pa.date32()), "flag": [True], "y": pa.array([1.5], pa.float32())}), path
    )
    text = draft_schema(path)
    data = tomllib.loads(text)["data"]
    assert [c["kind"] for c in data["columns"]] == ["categorical", "categorical"]
    assert "# type date32" in text
    assert set(data["target"]) == {"name", "low", "high"}


def test_draft_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"table\.xls"):
        draft_schema(tmp_path / "table.xls")
    with pytest.raises(DataError, match="there is no file"):
        draft_schema(tmp_path / "none.csv")
    (tmp_path / "one.csv").write_text("a;b\n1;2\n", encoding="utf-8")
    with pytest.raises(DataError, match="comma-separated"):
        draft_schema(tmp_path / "one.csv")
