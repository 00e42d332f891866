"""Records as bits and back: public thresholds only, nothing lost but the place within a bin, repairs told."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from qfed.config import CategoricalColumn, CodingConfig, DataConfig, NumericColumn, TargetColumn, load_config
from qfed.data import Coding, Records, load
from qfed.data.code import Kind, code_of
from qfed.data.scaling import scaled, unscaled
from qfed.errors import ConfigError, ShapeError

MIXED = DataConfig(
    source="patients.csv",
    columns=(
        NumericColumn(name="age", low=0, high=100),
        CategoricalColumn(name="blood", kind="categorical", categories=("A", "B", "AB", "0")),
        NumericColumn(name="lead", low=0, high=50, scale="log"),
        CategoricalColumn(name="smokes", kind="categorical", categories=("no", "yes")),
    ),
    target=TargetColumn(name="ill", classes=("no", "maybe", "yes")),
)
ODD = {"even": ("0", "2", "4", "6", "8"), "odd": ("1", "3", "5", "7", "9")}


def mixed(count: int = 200, seed: int = 0) -> Records:
    rng = np.random.default_rng(seed)
    blood, smokes = np.eye(4)[rng.integers(0, 4, count)] * 2 - 1, np.eye(2)[rng.integers(0, 2, count)] * 2 - 1
    numbers = rng.uniform(-1, 1, (count, 2))
    x = np.concatenate([numbers[:, :1], blood, numbers[:, 1:], smokes], axis=1).astype(np.float32)
    return Records(x, rng.integers(0, 3, count))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bits": 3},
        {"bits": 3, "numeric": "gray"},
        {"categories": "binary"},
        {"levels": (0.1, 0.5)},
        {"thresholds": {"age": (18.0, 65.0)}},
        {"columns": ("lead", "blood")},
        {"values": "centre", "bits": 2},
        {"classes": {"sure": ("no", "yes"), "unsure": ("maybe",)}},
    ],
)
def test_decoding_undoes_encoding_but_for_the_place_in_a_bin(settings: dict[str, Any]) -> None:
    coding = Coding.of(MIXED, CodingConfig(**settings))
    records = mixed()
    bits = coding.encode(records)
    assert bits.shape == (200, len(coding.names))
    assert bits.dtype == np.uint8
    assert len(set(coding.names)) == len(coding.names)
    again = coding.decode(bits, np.random.default_rng(1))
    assert again.repaired == 0
    np.testing.assert_array_equal(coding.encode_projected(again.records), bits)
    projected = coding.project(records)
    assert again.records.x.shape == projected.x.shape == (200, coding.schema.inputs)
    np.testing.assert_array_equal(again.records.y, projected.y)
    assert set(coding.table(again.records)) == {column.column.name for column in coding.columns} | {"ill"}


def test_thresholds_are_where_the_configuration_says() -> None:
    coding = Coding.of(MIXED, CodingConfig(columns=("age",), thresholds={"age": (18.0, 65.0)}))
    assert coding.names[:2] == ("age>18", "age>65")
    x = scaled(np.array([0.0, 17.9, 18.0, 64.0, 66.0, 100.0]), NumericColumn(name="age", low=0, high=100))
    records = mixed(6)
    values = records.x.copy()
    values[:, 0] = x
    bits = coding.encode(Records(values, records.y))[:, :2]
    assert bits.tolist() == [[0, 0], [0, 0], [1, 0], [1, 0], [1, 1], [1, 1]]


def test_no_record_changes_how_another_is_coded() -> None:
    coding = Coding.of(MIXED, CodingConfig(bits=3))
    records = mixed(20)
    one = Records(records.x[3:4], records.y[3:4])
    np.testing.assert_array_equal(coding.encode(one)[0], coding.encode(records)[3])


@pytest.mark.parametrize("kind", ["thermometer", "gray", "onehot", "binary"])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_words_differ_and_every_pattern_of_bits_means_a_level(kind: Kind, count: int) -> None:
    code = code_of("c", tuple("abcdefgh"[:count]), kind)
    assert len({tuple(word) for word in code.words.tolist()}) == count
    np.testing.assert_array_equal(code.decode(code.words)[0], np.arange(count))
    assert code.decode(code.words)[1] == 0
    every = np.array(list(product((0, 1), repeat=code.size)), np.uint8)
    levels, repaired = code.decode(every)
    assert repaired == len(every) - count
    nearest = (every[:, None] != code.words[None]).sum(2)
    assert np.all(nearest[np.arange(len(every)), levels] == nearest.min(1))
    np.testing.assert_array_equal(levels, code.decode(every)[0])
    if kind == "thermometer":
        assert np.all(np.diff(code.words.sum(1)) == 1)
    if kind in ("gray", "binary"):
        assert np.all(np.abs(np.diff(code.words.astype(int), axis=0)).sum(1) == 1)


def test_repairs_are_deterministic_and_counted() -> None:
    coding = Coding.of(MIXED, CodingConfig(columns=("blood",)))
    bits = coding.encode(mixed(3))
    bits[:, :4] = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    found = coding.decode(bits, np.random.default_rng(0))
    assert found.repaired == 2
    assert coding.table(found.records)["blood"].tolist() == ["A", "A", "AB"]


def test_thermometer_pairs_hold_the_two_way_tables_of_the_columns() -> None:
    """The claim of code.py: joint exceedances, which are pair counts, determine the table of two binned columns."""
    coding = Coding.of(MIXED, CodingConfig(columns=("age", "lead"), bits=3))
    records = mixed(500)
    bits = coding.encode(records)[:, :6].astype(int)
    age, lead = bits[:, :3].sum(1), bits[:, 3:].sum(1)
    table = np.zeros((4, 4))
    np.add.at(table, (age, lead), 1)
    above = np.ones((4, 4)) * 500
    above[1:, 1:] = bits[:, :3].T @ bits[:, 3:]
    above[1:, 0], above[0, 1:] = bits[:, :3].sum(0), bits[:, 3:].sum(0)
    edge = np.pad(above, ((0, 1), (0, 1)))
    np.testing.assert_array_equal(edge[:-1, :-1] - edge[1:, :-1] - edge[:-1, 1:] + edge[1:, 1:], table)


def test_digits_become_four_by_four_with_the_parity_as_label() -> None:
    data = DataConfig(source="digits")
    coding = Coding.of(data, CodingConfig(pool=2, levels=(0.4,), classes=ODD))
    records = load(data).records
    bits = coding.encode(records)
    assert bits.shape == (1797, 17)
    assert coding.names[-1] == "digit=odd"
    assert coding.target_names == ("digit=odd",)
    assert coding.patterns.tolist() == [[0], [1]]
    np.testing.assert_array_equal(bits[:, -1], records.y % 2)
    ink = ((records.x + 1) / 2).reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
    clear = np.abs(ink - 0.4) > 1e-6
    np.testing.assert_array_equal(bits[:, :16][clear], (ink > 0.4)[clear])


def test_records_of_a_class_in_no_group_are_left_out() -> None:
    coding = Coding.of(MIXED, CodingConfig(classes={"ill": ("yes",), "well": ("no",)}))
    records = mixed()
    assert len(coding.encode(records)) == np.count_nonzero(records.y != 1)
    assert coding.schema.classes == ("ill", "well")


def test_a_number_can_be_the_target() -> None:
    data = DataConfig(source="a.csv", columns=MIXED.columns[:1], target=TargetColumn(name="days", low=0, high=30))
    coding = Coding.of(data, CodingConfig(bits=2))
    assert coding.target_names == ("days>10", "days>20")
    assert coding.patterns.tolist() == [[0, 0], [1, 0], [1, 1]]
    rng = np.random.default_rng(0)
    records = Records(rng.uniform(-1, 1, (50, 1)).astype(np.float32), rng.uniform(-1, 1, 50).astype(np.float32))
    bits = coding.encode(records)
    np.testing.assert_array_equal(coding.encode_projected(coding.decode(bits, rng).records), bits)


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("low", [0.0, 3.0])
def test_units_come_back(scale: Any, low: float) -> None:
    column = NumericColumn(name="v", low=low, high=70, scale=scale)
    values = np.linspace(low, 70, 13)
    np.testing.assert_allclose(unscaled(scaled(values, column), column), values, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"columns": ("weight",)}, r"coding\.columns names \['weight'\]"),
        ({"thresholds": {"weight": (1.0,)}}, r"coding\.thresholds names \['weight'\]"),
        ({"thresholds": {"age": (120.0,)}}, r"within its range \(0, 100\), got \[120\.0\]"),
        ({"pool": 2}, "square image"),
        ({"classes": {"a": ("no",), "b": ("perhaps",)}}, r"coding\.classes\.b names \['perhaps'\]"),
        ({"numeric": "gray", "thresholds": {"age": (18.0, 65.0)}}, "3 bins, but a Gray code numbers 2, 4, 8"),
    ],
)
def test_what_the_schema_does_not_have_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Coding.of(MIXED, CodingConfig(**settings))


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("coding.levels=[0.5, 0.2]", "expected rising values"),
        ('coding.columns=["mean radius", "mean radius"]', "more than once"),
        ('coding.classes={a=["benign"]}', "at least two groups"),
        ('coding.classes={a=["benign"], b=["benign"]}', "more than one group"),
        ("coding.bits=9", "less than or equal to 8"),
    ],
)
def test_a_wrong_setting_is_told_by_its_name(item: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_config(None, [item])


def test_gradients_cannot_be_coded_and_uniform_needs_a_generator() -> None:
    with pytest.raises(ConfigError, match="gradient_histogram"):
        Coding.of(DataConfig(source="digits", features="gradient_histogram"), CodingConfig())
    coding = Coding.of(MIXED, CodingConfig())
    with pytest.raises(ConfigError, match="rng=None"):
        coding.decode(coding.encode(mixed(2)))
    with pytest.raises(ShapeError, match=r"0 and 1"):
        coding.decode(np.zeros((2, 3), np.uint8), np.random.default_rng(0))
