"""The sections: frozen, documented, strict, and consistent with each other."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import qfed.config
from qfed.config import CategoricalColumn, DataConfig, ModelConfig, NumericColumn, RunConfig, TargetColumn, load_config
from qfed.config.section import Section
from qfed.errors import ConfigError

SECTIONS = sorted(
    {value for value in vars(qfed.config).values() if inspect.isclass(value) and issubclass(value, Section)},
    key=lambda section: section.__name__,
)


def test_all_sections_are_found() -> None:
    assert {RunConfig, DataConfig, NumericColumn, CategoricalColumn, TargetColumn, ModelConfig} < set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_is_documented(section: type[BaseModel]) -> None:
    assert section.__doc__
    for name, field in section.model_fields.items():
        kind = field.annotation
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            assert kind.__doc__, name  # a section documents itself
        else:
            assert field.description, f"{section.__name__}.{name} has no docstring"


@pytest.mark.parametrize("section", SECTIONS)
def test_sections_are_frozen_and_closed(section: type[BaseModel]) -> None:
    assert section.model_config["frozen"] is True
    assert section.model_config["extra"] == "forbid"


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().privacy.epsilon = 100.0  # type: ignore[misc]


OTHER_FILES = ("qfed.config.site", "qfed.config.binding", "qfed.config.prices", "qfed.config.server")


def test_json_schema_describes_every_field() -> None:
    tree = RunConfig.model_json_schema()
    described = 0
    for section in SECTIONS:
        definition = tree if section is RunConfig else tree["$defs"].get(section.__name__)
        if definition is None:
            assert section.__module__ in OTHER_FILES, f"{section.__name__} is in no run's configuration"
        else:
            for name, field in section.model_fields.items():
                assert definition["properties"][name].get("description") == field.description
                described += field.description is not None
    assert described > 40


AGE: dict[str, Any] = {"name": "age", "low": 0, "high": 100}
SEX: dict[str, Any] = {"name": "sex", "kind": "categorical", "categories": ["f", "m"]}
ILL: dict[str, Any] = {"name": "ill", "classes": ["no", "yes"]}


def data(**changes: Any) -> DataConfig:
    return DataConfig.model_validate({"source": "x.csv", "columns": [AGE, SEX], "target": ILL} | changes)


def test_file_with_its_schema() -> None:
    config = data()
    assert isinstance(config.columns[0], NumericColumn)
    assert isinstance(config.columns[1], CategoricalColumn)
    assert data(columns=config.columns) == config
    unsaid = {key: value for key, value in SEX.items() if key != "kind"}
    assert data(columns=[AGE, unsaid]) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": [AGE | {"low": 100}]}, "low < high"),
        ({"columns": [AGE | {"low": 101}]}, "low < high"),
        ({"columns": [AGE | {"low": float("nan")}]}, "finite"),
        ({"columns": [AGE | {"high": float("inf")}]}, "finite"),
        ({"columns": [AGE | {"high": "100"}]}, "valid number"),
        ({"columns": [AGE | {"missing": 101}]}, "outside its range"),
        ({"columns": [AGE | {"missing": float("nan")}]}, "finite"),
        ({"columns": [SEX | {"categories": ["f"]}]}, "at least two labels"),
        ({"columns": [SEX | {"categories": ["f", "m", "f"]}]}, "each once"),
        ({"columns": [SEX | {"missing": "x"}]}, "none of its categories"),
        ({"columns": [AGE, AGE]}, r"\['age'\] are used twice"),
        ({"columns": [AGE, AGE | {"name": "ill"}]}, r"\['ill'\] are used twice"),
        ({"partition": "column", "column": "age"}, r"\['age'\] are used twice"),
        ({"partition": "column", "column": "ill"}, r"\['ill'\] are used twice"),
        ({"partition": "column"}, "needs data.column"),
        ({"target": {"name": "y"}}, "either classes"),
        ({"target": {"name": "y", "low": 1}}, "either classes"),
        ({"target": ILL | {"low": 1}}, "either classes"),
        ({"target": ILL | {"low": 1, "high": 2}}, "either classes"),
        ({"target": {"name": "y", "low": 2, "high": 2}}, "low < high"),
        ({"target": {"name": "y", "low": 2, "high": float("inf")}}, "finite"),
        ({"target": ILL | {"classes": ["a"]}}, "at least two labels"),
        ({"target": ILL | {"classes": ["a", "b", "a"]}}, "each once"),
        ({"source": "x.xls"}, "neither an embedded"),
        ({"source": "wine"}, "brings its own columns"),
        ({"columns": []}, "data.columns and data.target"),
        ({"target": None}, "data.columns and data.target"),
        ({"alpha": 0}, "greater than 0"),
        ({"test_fraction": 1}, "less than 1"),
    ],
)
def test_data_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        data(**changes)


def test_embedded_sets_have_no_site_column() -> None:
    with pytest.raises(ValidationError, match="no column that names sites"):
        DataConfig.model_validate({"source": "wine", "partition": "column", "column": "x"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"circuit": "c.py:f"}, "weight_shapes must give"),
        ({"weight_shapes": {"w": [1]}}, "built in and knows its weights"),
        ({"circuit": "c.py:f", "weight_shapes": {"w": [2, 0]}}, "positive integers"),
        ({"circuit": "c.py:f", "weight_shapes": {"w": [2.0]}}, "valid integer"),
        ({"circuit": "c:f", "weight_shapes": {"w": [2]}}, "not FILE.py:FUNCTION"),
        ({"wires": 0}, "greater than or equal to 1"),
        ({"wires": True}, "valid integer"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"kind": "quantum"}, "'hybrid' or 'twin'"),
    ],
)
def test_models_that_cannot_be_built_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig.model_validate(changes)


@pytest.mark.parametrize(
    ("failure", "message"),
    [({"site": 10, "round": 1}, "10 sites"), ({"site": 0, "round": 41}, "40 rounds"), ({"site": -1, "round": 1}, "0")],
)
def test_failures_of_sites_and_rounds_that_are_not_there(failure: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RunConfig.model_validate({"simulation": {"failures": [failure]}})


def test_a_sum_of_two_hides_nothing() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 3"):
        RunConfig.model_validate({"federation": {"sites": 2}})


LOCAL = "privacy.mode=local"


@pytest.mark.parametrize("strategy", ["krum", "multikrum", "median", "trimmed_mean", "bulyan"])
def test_a_strategy_that_compares_updates_is_refused_under_secure_aggregation_and_told_what_to_do(
    strategy: str,
) -> None:
    with pytest.raises(ConfigError, match="compares single updates, which secure aggregation hides") as error:
        load_config(None, [LOCAL, f"federation.strategy={strategy}"])
    assert "set federation.groups" in str(error.value)
    assert "each group's sum is then seen" in str(error.value)
    load_config(None, [LOCAL, f"federation.strategy={strategy}", "secagg.mode=off"])
    groups = {"median": 3, "trimmed_mean": 3, "krum": 5, "multikrum": 5, "bulyan": 7}[strategy]
    enough = [LOCAL, f"federation.strategy={strategy}", f"federation.groups={groups}", "federation.sites=21"]
    assert load_config(None, enough).federation.groups == groups
    with pytest.raises(ConfigError, match=f"compares at least {groups} updates, got {groups - 1} groups"):
        load_config(None, [*enough, f"federation.groups={groups - 1}"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["federation.groups=3"], "serves the strategies krum"),
        (["federation.groups=4", "federation.strategy=median"], "fewer than three sites in a group"),
        (["federation.groups=3", "federation.strategy=median", "secagg.mode=off"], "leave groups out"),
        (
            ["federation.strategy=krum", "secagg.mode=off", "federation.byzantine=4"],
            "at least 11 updates, got 10 sites",
        ),
        (["federation.strategy=fedprox", "federation.proximal_mu=0"], "greater than 0"),
        (["federation.beta1=1"], "less than 1"),
        (["federation.strategy=adam"], "fedadam"),
    ],
)
def test_server_settings_that_do_not_fit_are_refused(changes: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(None, [LOCAL, *changes])


def test_a_logarithmic_scale_needs_a_range_that_is_not_negative() -> None:
    with pytest.raises(ValidationError, match=r"'age': scale=\"log\" needs low >= 0, got low=-1"):
        data(columns=[{**AGE, "low": -1, "scale": "log"}, SEX])
