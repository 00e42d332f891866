"""The same configuration gives the same result, byte for byte but for times; with privacy, but for noise as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import small

import qfed
from qfed.models import flatten
from qfed.simulation import simulate

HYBRID = ("model.kind=hybrid", "federation.sites=4")
NOISY = {"metrics", "final", "initial", "run"}
"""What noise reaches: scores. The model before training is not noisy, but its evaluation is rounded like the others."""


def without(tree: Any, left_out: set[str]) -> Any:
    """A JSON tree without the fields of these names, wherever they stand."""
    if isinstance(tree, dict):
        return {key: without(value, left_out) for key, value in tree.items() if key not in left_out}
    return [without(value, left_out) for value in tree] if isinstance(tree, list) else tree


def tree_of(folder: Path, left_out: set[str]) -> str:
    return json.dumps(without(json.loads((folder / "result.json").read_text()), left_out), indent=1)


def vector_of(folder: Path) -> np.ndarray:
    return flatten(qfed.load_model(folder).module)


@pytest.fixture(scope="module")
def open_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("open") / "out"
    simulate(small(*HYBRID, "privacy.mode=off", 'simulation.compare=["twin","no_federation"]'), out=out)
    return out


@pytest.fixture(scope="module")
def private_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("private") / "out"
    simulate(small(*HYBRID), out=out)
    return out


def test_without_privacy_everything_but_times_repeats(open_run: Path, tmp_path: Path) -> None:
    again = tmp_path / "out"
    simulate(small(*HYBRID, "privacy.mode=off", 'simulation.compare=["twin","no_federation"]'), out=again)
    assert tree_of(again, {"seconds"}) == tree_of(open_run, {"seconds"})
    assert (again / "model.json").read_bytes() == (open_run / "model.json").read_bytes()
    assert np.array_equal(vector_of(again), vector_of(open_run))


@pytest.mark.slow
def test_another_seed_gives_another_result(open_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "out"
    simulate(small(*HYBRID, "privacy.mode=off", "seed=2"), out=other)
    assert not np.array_equal(vector_of(other), vector_of(open_run))


def test_secure_aggregation_changes_no_bit_of_the_model(open_run: Path, tmp_path: Path) -> None:
    clear = tmp_path / "out"
    simulate(small(*HYBRID, "privacy.mode=off", "secagg.mode=off"), out=clear)
    assert np.array_equal(vector_of(clear), vector_of(open_run))
    masked, plain = (json.loads((folder / "result.json").read_text()) for folder in (open_run, clear))
    assert [record["metrics"] for record in plain["rounds"]] == [record["metrics"] for record in masked["rounds"]]
    assert plain["final"] == masked["final"]
    assert "every site's own update" in plain["privacy"]["secure_aggregation"]
    assert "no site's own update" in masked["privacy"]["secure_aggregation"]


def test_with_privacy_all_but_scores_and_times_repeats(private_run: Path, tmp_path: Path) -> None:
    again = tmp_path / "out"
    simulate(small(*HYBRID), out=again)
    assert tree_of(again, NOISY | {"seconds"}) == tree_of(private_run, NOISY | {"seconds"})
    assert not np.array_equal(vector_of(again), vector_of(private_run)), "noise is never seeded"


def test_the_result_without_noisy_fields_still_says_something(private_run: Path) -> None:
    """Guards the comparison above against leaving out too much."""
    left = json.loads(tree_of(private_run, NOISY | {"seconds"}))
    assert {"config", "sites", "parameters", "privacy", "rounds"} <= set(left)
    assert {"bytes", "epsilon", "survivors", "status"} <= set(left["rounds"][0])
    assert {"bytes_up", "bytes_down", "epsilon", "train_records"} <= set(left["sites"][0])
