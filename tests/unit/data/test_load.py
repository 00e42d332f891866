"""Files and embedded sets become records in [-1, 1], or one clear error."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qfed.config import DataConfig
from qfed.data import Schema, load, schema_of
from qfed.data.embedded import COLUMNS, TARGETS
from qfed.errors import ConfigError, DataError, MissingExtra

COLS: list[dict[str, Any]] = [
    {"name": "age", "kind": "numeric", "low": 0, "high": 100},
    {"name": "sex", "kind": "categorical", "categories": ["f", "m"]},
]
GOOD = "age,sex,ill,ward\n50,f,yes,A\n0,m,no,B\n100,f,no,A\n25,m,yes,B\n"


def config(path: Path, **changes: Any) -> DataConfig:
    tree = {"source": str(path), "columns": COLS, "target": {"name": "ill", "classes": ["no", "yes"]}}
    return DataConfig.model_validate(tree | changes)


def csv(folder: Path, text: str, name: str = "patients.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(config: DataConfig, *expected: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(config)
    message = str(caught.value)
    for part in expected:
        assert part in message, message
    assert "\n" not in message
    assert "data.source" in message or config.source in message
    return message


def test_csv_is_encoded_by_hand_computable_values(tmp_path: Path) -> None:
    dataset = load(config(csv(tmp_path, GOOD)))
    assert dataset.schema == Schema(("age", "sex=f", "sex=m"), "classification", ("no", "yes"), "ill")
    assert dataset.records.x.dtype == np.float32
    assert dataset.records.y.dtype == np.int64
    np.testing.assert_array_equal(dataset.records.x, [[0, 1, -1], [-1, -1, 1], [1, 1, -1], [-0.5, -1, 1]])
    np.testing.assert_array_equal(dataset.records.y, [1, 0, 0, 1])
    assert dataset.site_of is None


def test_regression_target_is_scaled_by_its_public_range(tmp_path: Path) -> None:
    path = csv(tmp_path, "age,sex,days\n1,f,0\n2,m,10\n3,m,2.5\n")
    dataset = load(config(path, target={"name": "days", "low": 0, "high": 10}))
    assert dataset.schema.task == "regression"
    assert dataset.schema.outputs == 1
    assert dataset.schema.target_range == (0, 10)
    assert Schema.from_dict(json.loads(json.dumps(dataset.schema.to_dict()))) == dataset.schema
    assert dataset.records.y.dtype == np.float32
    np.testing.assert_array_equal(dataset.records.y, [-1, 1, -0.5])


def test_schema_is_known_without_the_file(tmp_path: Path) -> None:
    path = tmp_path / "later.csv"
    before = schema_of(config(path))
    csv(tmp_path, GOOD, "later.csv")
    assert load(config(path)).schema == before
    assert (before.inputs, before.outputs) == (3, 2)
    assert Schema.from_dict(before.to_dict()) == before


def test_parquet_types_agree_with_csv(tmp_path: Path) -> None:
    path = tmp_path / "patients.parquet"
    sex = pa.array(["f", "m", "f", "m"]).dictionary_encode()
    pq.write_table(
        pa.table({"age": pa.array([50, 0, 100, 25], pa.int16()), "sex": sex, "ill": ["yes", "no", "no", "yes"]}), path
    )
    parquet, text = load(config(path)), load(config(csv(tmp_path, GOOD)))
    np.testing.assert_array_equal(parquet.records.x, text.records.x)
    np.testing.assert_array_equal(parquet.records.y, text.records.y)


def test_column_that_names_sites_is_read_and_is_no_feature(tmp_path: Path) -> None:
    dataset = load(config(csv(tmp_path, GOOD), partition="column", column="ward"))
    assert dataset.site_of is not None
    assert dataset.site_of.tolist() == ["A", "B", "A", "B"]
    assert dataset.schema.inputs == 3


def test_quotes_spaces_blank_lines_and_byte_order_mark_are_read_as_a_spreadsheet_writes_them(tmp_path: Path) -> None:
    text = '\ufeffage,sex,ill\n " 50 " ,f,yes\n\n0,"m", no\n'.replace(' " 50 " ', '" 50 "')
    dataset = load(config(csv(tmp_path, text)))
    np.testing.assert_array_equal(dataset.records.x[:, 0], [0, -1])
    np.testing.assert_array_equal(dataset.records.y, [1, 0])


def test_values_outside_the_public_range_are_clipped_and_counted_in_the_local_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="qfed.data"):
        dataset = load(config(csv(tmp_path, "age,sex,ill\n-3,f,no\n250,f,no\n10,f,no\n")))
    np.testing.assert_array_almost_equal(dataset.records.x[:, 0], [-1, 1, -0.8])
    [record] = caplog.records
    assert "2 of 3 values outside its public range [0, 100]" in record.getMessage()


@pytest.mark.parametrize(("low", "values"), [(1.0, (1.0, 10.0, 100.0)), (0.0, (0.0, 0.2 * 51**0.5 - 0.2, 10.0))])
def test_a_logarithmic_scale_spreads_orders_of_magnitude_evenly(
    low: float, values: tuple[float, ...], tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text("size,ill\n" + "".join(f"{value!r},{'yes' if value > 2 else 'no'}\n" for value in values))
    column = {"name": "size", "low": low, "high": values[-1], "scale": "log"}
    config = DataConfig.model_validate(
        {"source": str(file), "columns": [column], "target": {"name": "ill", "classes": ["no", "yes"]}}
    )
    assert load(config).records.x[:, 0].tolist() == pytest.approx([-1, 0, 1], abs=1e-6)


def test_scaling_uses_no_statistic_of_the_other_records(tmp_path: Path) -> None:
    """A record's coordinates are the same whoever else is in the file."""
    alone = load(config(csv(tmp_path, "age,sex,ill\n37,f,yes\n"))).records.x[0]
    among = load(config(csv(tmp_path, "age,sex,ill\n37,f,yes\n1,m,no\n99,m,no\n1000,m,no\n"))).records.x[0]
    np.testing.assert_array_equal(alone, among)


def test_extreme_range_does_not_overflow(tmp_path: Path) -> None:
    columns = [{"name": "age", "kind": "numeric", "low": -1.7e308, "high": 1.7e308}, COLS[1]]
    x = load(config(csv(tmp_path, "age,sex,ill\n-1.7e308,f,no\n0,f,no\n1.7e308,f,no\n"), columns=columns)).records.x
    np.testing.assert_array_equal(x[:, 0], [-1, 0, 1])


def test_missing_cells_are_filled_only_where_told(tmp_path: Path) -> None:
    columns = [COLS[0] | {"missing": 50}, COLS[1] | {"missing": "m"}]
    path = csv(tmp_path, "age,sex,ill\n,f,no\nNaN,,no\nn/a,m,yes\n")
    x = load(config(path, columns=columns)).records.x
    np.testing.assert_array_equal(x, [[0, 1, -1], [0, -1, 1], [0, -1, 1]])
    refused(config(path), "'age'", "3 empty cell(s), in rows 1, 2, 3", "missing = NUMBER")
    refused(config(path, columns=[columns[0], COLS[1]]), "'sex'", "1 empty cell(s), in row 2", 'missing = "CATEGORY"')


@pytest.mark.parametrize("dtype", [pa.float32(), pa.float64()])
def test_parquet_null_and_nan_are_both_empty(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "p.parquet"
    table = {"age": pa.array([None, float("nan"), 3.0], dtype), "sex": ["f", "m", "m"], "ill": ["no", "no", "yes"]}
    pq.write_table(pa.table(table), path)
    refused(config(path), "2 empty cell(s), in rows 1, 2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age,sex,ill\n", ["zero rows"]),
        ("", ["cannot read", "UTF-8 CSV"]),
        ("agee,sex,ill\n1,f,no\n", ["lacks the column 'age'", "did you mean 'agee'"]),
        ("x,y\n1,f\n", ["lacks the columns 'age', 'sex', 'ill'", "it has 'x', 'y'"]),
        ("age;sex;ill\n1;f;no\n", ["comma-separated"]),
        ("age,sex,ill,age\n1,f,no,2\n", ["unique", "'age'", "more than once"]),
        ("age,sex,ill\nold,f,no\n3,f,no\nx,f,no\n", ["'age'", "expected numbers, got 'old' in rows 1, 3"]),
        ("age,sex,ill\n1,f,no\ninf,f,no\n", ["'age'", "finite", "'inf' in row 2"]),
        ("age,sex,ill\n1e999,f,no\n", ["finite", "'1e999'"]),
        ("age,sex,ill\n1,d,no\n1,f,no\n1,x,no\n", ["'sex'", "['f', 'm']", "'d', 'x' in rows 1, 3", "categories"]),
        ("age,sex,ill\n1,f,No\n", ["'ill'", "['no', 'yes']", "'No' in row 1", "classes"]),
        ("age,sex,ill\n1,f,\n", ["'ill'", "1 empty cell(s), in row 1", "without a target"]),
        ("age,sex,ill\n1,f\n", ["cannot read", "Expected 3 columns, got 2"]),
    ],
)
def test_faults_of_a_csv_are_named(tmp_path: Path, text: str, expected: list[str]) -> None:
    refused(config(csv(tmp_path, text)), *expected)


def test_only_the_first_rows_are_listed(tmp_path: Path) -> None:
    text = "age,sex,ill\n" + "old,f,no\n" * 9
    refused(config(csv(tmp_path, text)), "rows 1, 2, 3 and 6 more")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    refused(config(tmp_path / "none.csv"), "there is no file")
    (tmp_path / "folder.csv").mkdir()
    refused(config(tmp_path / "folder.csv"), "not a file")
    refused(config(csv(tmp_path, GOOD, "text.parquet")), "Parquet")
    (tmp_path / "latin.csv").write_bytes("age,sex,ill\n1,f,n\u00f6\n".encode("latin-1"))
    refused(config(tmp_path / "latin.csv"), "UTF-8")


def test_parquet_column_of_a_foreign_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"age": [1, 2], "sex": [["f"], ["m"]], "ill": ["no", "yes"]}), path)
    refused(config(path), "'sex'", "list<")


def test_empty_site_name_is_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, "age,sex,ill,ward\n1,f,no,\n1,f,no,B\n")
    refused(config(path, partition="column", column="ward"), "'ward'", "row 1", "which site")


def test_strings_in_a_number_target_are_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "age,sex,days\n1,f,many\n")
    refused(config(path, target={"name": "days", "low": 0, "high": 10}), "'days'", "'many' in row 1")


@pytest.mark.parametrize(
    ("name", "rows", "inputs", "outputs"),
    [("breast_cancer", 569, 30, 2), ("digits", 1797, 64, 10), ("wine", 178, 13, 3)],
)
def test_embedded_sets(name: str, rows: int, inputs: int, outputs: int) -> None:
    dataset = load(DataConfig(source=name))
    assert dataset.records.x.shape == (rows, inputs)
    assert (dataset.schema.inputs, dataset.schema.outputs) == (inputs, outputs)
    assert schema_of(DataConfig(source=name)) == dataset.schema
    assert np.abs(dataset.records.x).max() == 1
    assert set(dataset.records.y.tolist()) == set(range(outputs))


@pytest.mark.parametrize("name", ["breast_cancer", "wine"])
def test_embedded_ranges_are_those_of_the_published_description(name: str) -> None:
    """The table was copied by hand; here it is compared with the description that it cites."""
    datasets = pytest.importorskip("sklearn.datasets")
    features = getattr(datasets, f"load_{name}")()
    number = r"\s+(-?\d+(?:\.\d+)?)"
    row = re.compile(rf"^[^:\n]+:{number}{number}(?:\s+[\d.]+\s+[\d.]+)?\s*$", re.MULTILINE)
    published = [(float(low), float(high)) for low, high in row.findall(features.DESCR)]
    assert published == [(column.low, column.high) for column in COLUMNS[name]]
    assert [str(feature) for feature in features.feature_names] == [column.name for column in COLUMNS[name]]
    assert TARGETS[name].classes == tuple(str(label) for label in features.target_names)


def test_missing_extras_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"scikit-learn.*qfed\[client\]"):
        load(DataConfig(source="wine"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pyarrow.*qfed\[client\]"):
        load(config(csv(tmp_path, GOOD)))


def test_data_error_is_a_configuration_error() -> None:
    assert issubclass(DataError, ConfigError)
    assert DataError.exit_status == 2
