"""Records are dealt once each, repeatably, and every site can train and evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qfed.config import DataConfig
from qfed.data import Dataset, Records, Schema, SiteData, partition
from qfed.errors import ConfigError, DataError


def dataset(records: int, classes: int | None = 3, site_of: list[str] | None = None) -> Dataset:
    """Records that can be told apart by their only coordinate."""
    x = np.linspace(-1, 1, records, dtype=np.float32)[:, None]
    if classes is None:
        schema = Schema(("x",), "regression", None, "y")
        return Dataset(schema, Records(x, np.linspace(-1, 1, records, dtype=np.float32)))
    names = tuple(str(label) for label in range(classes))
    y = np.arange(records, dtype=np.int64) % classes
    return Dataset(
        Schema(("x",), "classification", names, "y"), Records(x, y), None if site_of is None else np.array(site_of)
    )


def config(**changes: Any) -> DataConfig:
    return DataConfig.model_construct(**(DataConfig().model_dump() | changes))


@settings(deadline=None)
@given(
    records=st.integers(2, 120),
    sites=st.integers(1, 60),
    kind=st.sampled_from(["iid", "dirichlet"]),
    alpha=st.sampled_from([1e-9, 1e-3, 0.1, 1.0, 100.0]),
    fraction=st.floats(0.01, 0.99),
    classes=st.sampled_from([2, 3, None]),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_record_is_dealt_once_and_no_part_is_empty(
    records: int, sites: int, kind: str, alpha: float, fraction: float, classes: int | None, seed: int
) -> None:
    source, choice = dataset(records, classes), config(partition=kind, alpha=alpha, test_fraction=fraction)
    if records < 2 * sites:
        with pytest.raises(DataError, match=f"federation.sites={sites}"):
            partition(source, choice, sites, seed)
        return
    dealt = partition(source, choice, sites, seed)
    assert len(dealt) == sites
    assert len({site.name for site in dealt}) == sites
    assert all(len(site.train) >= 1 and len(site.test) >= 1 for site in dealt)
    together = np.concatenate([part.x[:, 0] for site in dealt for part in (site.train, site.test)])
    np.testing.assert_array_equal(np.sort(together), source.records.x[:, 0])
    again = partition(source, choice, sites, seed)
    for a, b in zip(dealt, again, strict=True):
        np.testing.assert_array_equal(a.train.x, b.train.x)
        np.testing.assert_array_equal(a.test.y, b.test.y)


def test_targets_stay_with_their_records() -> None:
    source = dataset(60)
    label = dict(zip(source.records.x[:, 0].tolist(), source.records.y.tolist(), strict=True))
    for kind in ("iid", "dirichlet"):
        for site in partition(source, config(partition=kind), 5, 3):
            assert [label[x] for x in site.train.x[:, 0].tolist()] == site.train.y.tolist()


def test_iid_sizes_differ_by_one_at_most_and_the_seed_matters() -> None:
    first, second = (partition(dataset(103), config(), 10, seed) for seed in (1, 2))
    assert {len(site.train) + len(site.test) for site in first} == {10, 11}
    assert not np.array_equal(first[0].train.x, second[0].train.x)


def test_test_fraction_is_held_out() -> None:
    [site] = partition(dataset(100), config(test_fraction=0.3), 1, 1)
    assert (len(site.train), len(site.test)) == (70, 30)


def test_dirichlet_skew_follows_alpha() -> None:
    """Mean share of a site's commonest label: near 1 for small alpha, near 1/3 for large."""

    def skew(alpha: float) -> float:
        dealt = partition(dataset(3000), config(partition="dirichlet", alpha=alpha), 10, 5)
        return float(np.mean([np.bincount(site.train.y.astype(np.int64)).max() / len(site.train) for site in dealt]))

    assert skew(0.05) > 0.75
    assert skew(1000.0) < 0.4


def test_dirichlet_skews_a_regression_target_too() -> None:
    spread = [
        float(np.std(site.train.y))
        for site in partition(dataset(2000, None), config(partition="dirichlet", alpha=0.02), 5, 1)
    ]
    even = [float(np.std(site.train.y)) for site in partition(dataset(2000, None), config(), 5, 1)]
    assert np.mean(spread) < 0.8 * np.mean(even)


def test_column_deals_by_value() -> None:
    source = dataset(6, site_of=["b", "a", "b", "a", "b", "b"])
    dealt = partition(source, config(partition="column", column="ward"), 2, 1)
    assert [(site.name, len(site.train) + len(site.test)) for site in dealt] == [("a", 2), ("b", 4)]


def test_column_faults_are_named() -> None:
    choice = config(partition="column", column="ward")
    with pytest.raises(DataError, match=r"'ward' names 2 sites \('a', 'b'\), but federation.sites=3"):
        partition(dataset(4, site_of=["a", "b", "a", "b"]), choice, 3, 1)
    with pytest.raises(DataError, match="site 'b' has 1 record"):
        partition(dataset(3, site_of=["a", "b", "a"]), choice, 2, 1)
    with pytest.raises(DataError, match=r"data\.column"):
        partition(dataset(4), choice, 2, 1)


def test_more_sites_than_records_says_how_many_fit() -> None:
    with pytest.raises(DataError, match=r"has 5 records, federation.sites=9: that is more sites.*at most 2 sites"):
        partition(dataset(5), config(), 9, 1)
    with pytest.raises(DataError, match="one to hold out"):
        partition(dataset(5), config(), 3, 1)
    with pytest.raises(DataError, match="1 record: at least 2 are needed"):
        partition(dataset(1), config(), 9, 1)
    with pytest.raises(ConfigError, match=r"federation\.sites=0"):
        partition(dataset(5), config(), 0, 1)


@pytest.mark.parametrize("classes", [3, None])
def test_site_data_round_trip(tmp_path: Path, classes: int | None) -> None:
    source = dataset(20, classes)
    site = partition(source, config(), 2, 1)[1]
    site.save(tmp_path / "site.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["site.npz"]
    back = SiteData.load(tmp_path / "site.npz", source.schema)
    assert back.name == "site-1"
    for a, b in ((site.train, back.train), (site.test, back.test)):
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.y, b.y)
        assert (a.x.dtype, a.y.dtype) == (b.x.dtype, b.y.dtype)


def test_site_data_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    source = dataset(20)
    site, path = partition(source, config(), 2, 1)[0], tmp_path / "site.npz"
    site.save(path)
    with pytest.raises(DataError, match="1 features, but the schema has 2"):
        SiteData.load(path, Schema(("x", "z"), "classification", ("0", "1", "2"), "y"))
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        SiteData.load(path, Schema(("x",), "classification", ("0", "1"), "y"))
    with pytest.raises(DataError, match="expected x float32"):
        SiteData.load(path, Schema(("x",), "regression", None, "y"))
    with pytest.raises(DataError, match="cannot read"):
        SiteData.load(tmp_path / "none.npz", source.schema)
    for bad in (b"", b"not a zip", path.read_bytes()[:200]):
        path.write_bytes(bad)
        with pytest.raises(DataError, match="save them again"):
            SiteData.load(path, source.schema)
    with pytest.raises(DataError, match="npz"):
        site.save(tmp_path / "site.bin")


def test_site_data_with_nan_or_pickle_is_refused(tmp_path: Path) -> None:
    source, path = dataset(20), tmp_path / "site.npz"
    part = Records(np.full((2, 1), np.nan, dtype=np.float32), np.zeros(2, dtype=np.int64))
    SiteData(part, part, "bad").save(path)
    with pytest.raises(DataError, match="outside"):
        SiteData.load(path, source.schema)
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(path, train_x=objects, train_y=objects, test_x=objects, test_y=objects, name=np.array("x"))
    with pytest.raises(DataError, match="save them again"):
        SiteData.load(path, source.schema)
