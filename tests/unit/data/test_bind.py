"""A site's own table: read from a file or a database under the run's names, checked, and split record by record."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qfed.config import DataBinding, DataConfig, load_site
from qfed.data import Records, hold_out, load, load_bound
from qfed.data.bind import read_bound
from qfed.errors import ConfigError, DataError

HERE = ("Alter", "sex", "glucose", "ill")
ROWS = [(50, "m", "5.5", 0), (20, "w", "10.0", 1), (80, "w", None, 1)]
RUN = DataConfig.model_validate(
    {
        "source": "run.csv",
        "columns": [
            {"name": "age", "low": 0.0, "high": 100.0},
            {"name": "sex", "kind": "categorical", "categories": ["male", "female"]},
            {"name": "glucose", "low": 0.0, "high": 360.0, "missing": 90.0},
        ],
        "target": {"name": "outcome", "classes": ["healthy", "ill"]},
    }
)
NAMES: dict[str, Any] = {
    "rename": {"Alter": "age", "ill": "outcome"},
    "recode": {"sex": {"m": "male", "w": "female"}, "outcome": {"0": "healthy", "1": "ill"}},
    "convert": {"glucose": {"factor": 18.0}},
}
WANTED_X = [[0.0, 1, -1, 99 / 180 - 1], [-0.6, -1, 1, 0.0], [0.6, -1, 1, -0.5]]


def csv(folder: Path, rows: list[tuple[Any, ...]] = ROWS) -> dict[str, Any]:
    lines = [",".join(HERE), *(",".join("" if cell is None else str(cell) for cell in row) for row in rows)]
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return {"source": str(folder / "t.csv")}


def parquet(folder: Path) -> dict[str, Any]:
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(HERE)}
    pq.write_table(pa.table(columns | {"glucose": [5.5, 10.0, None]}), folder / "t.parquet")
    return {"source": str(folder / "t.parquet")}


def sqlite(folder: Path) -> Path:
    with closing(sqlite3.connect(folder / "t.db")) as database:
        database.execute('CREATE TABLE cohort ("Alter" INTEGER, sex TEXT, glucose REAL, ill INTEGER, other BLOB)')
        database.executemany("INSERT INTO cohort VALUES (?, ?, ?, ?, x'00')", ROWS)
        database.commit()
    return folder / "t.db"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = sqlite(tmp_path)
    monkeypatch.setenv("COHORT_URL", f"sqlite:///{file}")
    return file


def bound(**fields: Any) -> DataBinding:
    return DataBinding.model_validate(NAMES | fields)


@pytest.mark.parametrize("make", [csv, parquet])
def test_a_file_is_read_under_the_runs_names_codes_and_units(tmp_path: Path, make: Any) -> None:
    records = load_bound(bound(**make(tmp_path)), RUN).records
    np.testing.assert_allclose(records.x, WANTED_X, atol=1e-6)
    assert records.y.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "what", [{"table": "cohort"}, {"table": "main.cohort"}, {"query": 'SELECT "Alter", sex, glucose, ill FROM cohort'}]
)
def test_a_database_gives_the_same_records(url: Path, what: dict[str, str]) -> None:
    records = load_bound(bound(url_env="COHORT_URL", **what), RUN).records
    np.testing.assert_allclose(records.x, WANTED_X, atol=1e-6)
    assert records.y.tolist() == [0, 1, 1]


def test_a_database_is_opened_read_only(url: Path) -> None:
    with pytest.raises(DataError, match=r"readonly|read-only|does not return rows"):
        load_bound(bound(url_env="COHORT_URL", query="DELETE FROM cohort"), RUN)
    assert load_bound(bound(url_env="COHORT_URL", table="cohort"), RUN).records.y.tolist() == [0, 1, 1]


def test_a_table_of_the_embedded_columns_serves_an_embedded_run(tmp_path: Path) -> None:
    """A run on wine names columns; a site that binds a CSV with them gets what the embedded set would give."""
    from qfed.data import embedded

    whole = load(DataConfig(source="wine"))
    x, y = embedded.raw("wine")
    names = [column.name for column in embedded.COLUMNS["wine"]]
    labels = embedded.TARGETS["wine"].classes
    assert labels is not None
    lines = [",".join([*names, "cultivar"])]
    lines += [",".join([*map(repr, map(float, row)), labels[k]]) for row, k in zip(x, y, strict=True)]
    (tmp_path / "wine.csv").write_text("\n".join(lines))
    again = load_bound(DataBinding(source=str(tmp_path / "wine.csv")), DataConfig(source="wine"))
    assert again.schema == whole.schema
    assert np.array_equal(again.records.x, whole.records.x)
    assert np.array_equal(again.records.y, whole.records.y)


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_missing_column_is_told_by_the_sites_name_and_where_to_correct_it(tmp_path: Path, url: Path) -> None:
    wrong = NAMES | {"rename": {"age_years": "age", "ill": "outcome"}}
    with pytest.raises(DataError, match=r"lacks the column 'age_years'.*rename in site.toml"):
        load_bound(DataBinding.model_validate(wrong | csv(tmp_path)), RUN)
    with pytest.raises(DataError, match="table cohort lacks the column 'age_years'"):
        load_bound(DataBinding.model_validate(wrong | {"url_env": "COHORT_URL", "table": "cohort"}), RUN)


def test_a_code_that_is_not_recoded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'d'.*row 1"):
        load_bound(bound(**csv(tmp_path, [(50, "d", "5.5", 0)])), RUN)


def test_a_database_url_is_in_the_environment_and_in_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = bound(url_env="COHORT_URL", table="cohort")
    monkeypatch.delenv("COHORT_URL", raising=False)
    with pytest.raises(ConfigError, match="COHORT_URL is not set"):
        load_bound(binding, RUN)
    for url in (
        "postgresql+pg8000://reader:geheim@localhost/x",
        "nosuch://reader:geheim@localhost/x",
        f"sqlite:///{tmp_path}/none-geheim.db",
        "geheim",
    ):
        monkeypatch.setenv("COHORT_URL", url)
        with pytest.raises(DataError) as caught:
            load_bound(binding, RUN)
        assert "geheim" not in str(caught.value).replace("none-geheim.db", "")


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({}, "give either source"),
        ({"source": "a.csv", "url_env": "X"}, "give either source"),
        ({"source": "a.xlsx"}, "not a .csv or .parquet"),
        ({"source": "a.csv", "table": "t"}, "belong to a database"),
        ({"url_env": "X"}, "either table or query"),
        ({"url_env": "X", "table": "t", "query": "q"}, "either table or query"),
        ({"source": "a.csv", "rename": {"a": "x", "b": "x"}}, "name 'x' to two columns"),
        ({"source": "a.csv", "convert": {"a": {"factor": 0.0}}}, "factor=0"),
    ],
)
def test_a_binding_that_cannot_be_meant_is_refused(tree: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DataBinding.model_validate(tree)


def test_a_file_is_taken_from_the_folder_of_site_toml(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(
        'name = "a"\ndataset = "d"\n[data]\nsource = "t.csv"\n[policy]\nepsilon = 1.0\ndelta = 1e-5\n'
    )
    binding = load_site(tmp_path / "site.toml").data
    assert binding is not None
    assert binding.source == str(tmp_path / "t.csv")
    csv(tmp_path)
    assert read_bound(binding, ["Alter"]).numbers("Alter")[0].tolist() == [50.0, 20.0, 80.0]


# -- the split ---------------------------------------------------------------------------------------------------------


def some(count: int, seed: int = 0) -> Records:
    rng = np.random.default_rng(seed)
    return Records(rng.uniform(-1, 1, (count, 3)).astype(np.float32), rng.integers(0, 2, count))


def rows(records: Records) -> set[bytes]:
    return {x.tobytes() + y.tobytes() for x, y in zip(records.x, records.y, strict=True)}


def test_the_split_does_not_depend_on_order_or_on_other_records() -> None:
    records = some(2000)
    split = hold_out(records, 0.2, "cohort")
    shuffled = hold_out(records.take(np.random.default_rng(1).permutation(2000)), 0.2, "cohort")
    assert rows(split.test) == rows(shuffled.test)
    fewer = hold_out(records.take(np.arange(1000)), 0.2, "cohort")
    assert rows(fewer.test) == rows(split.test) & rows(records.take(np.arange(1000)))
    assert rows(fewer.train) == rows(split.train) & rows(records.take(np.arange(1000)))


def test_the_split_has_the_share_that_was_asked_for() -> None:
    """Binomial: 3000 records, 5 standard deviations."""
    for fraction in (0.1, 0.2, 0.5):
        held = len(hold_out(some(3000), fraction, "cohort").test)
        assert abs(held - 3000 * fraction) < 5 * (3000 * fraction * (1 - fraction)) ** 0.5


def test_twins_stay_together_and_data_sets_split_differently() -> None:
    records = some(200)
    twice = hold_out(Records(np.repeat(records.x, 2, 0), np.repeat(records.y, 2)), 0.3, "cohort")
    assert not rows(twice.test) & rows(twice.train)
    assert rows(hold_out(records, 0.3, "cohort").test) != rows(hold_out(records, 0.3, "other").test)


def test_a_table_without_a_record_to_train_on_is_refused() -> None:
    record = next(one for seed in range(100) if rows(hold_out(one := some(20, seed), 0.9, "cohort").test))
    held = hold_out(record, 0.9, "cohort").test
    with pytest.raises(DataError, match="held out"):
        hold_out(held, 0.9, "cohort")
