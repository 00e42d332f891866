"""Whole simulations of a user's own files, partitions and circuits: what goes in by configuration comes out right."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import qfed
from qfed.config import RunConfig, load_config
from qfed.data import load, partition
from qfed.errors import ConfigError
from qfed.federation.result import RunResult
from qfed.simulation import simulate

QUICK = """
[model]
wires = 2
layers = 1
[training]
rounds = 3
local_steps = 4
batch_size = 12
learning_rate = 0.2
[privacy]
mode = "off"
[simulation]
compare = []
"""


def run(folder: Path, text: str) -> tuple[RunConfig, RunResult]:
    (folder / "run.toml").write_text(text + QUICK)
    config = load_config(folder / "run.toml")
    return config, simulate(config, out=folder / "out")


def test_regression_on_a_csv(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 10, (60, 2))
    dose = 20 + 6 * x[:, 0] - 3 * x[:, 1]
    rows = "".join(f"{a},{b},{y}\n" for (a, b), y in zip(x.tolist(), dose.tolist(), strict=True))
    (tmp_path / "doses.csv").write_text("age,weight,dose\n" + rows)
    config, result = run(
        tmp_path,
        """
[data]
source = "doses.csv"
columns = [{name = "age", low = 0, high = 10}, {name = "weight", low = 0, high = 10}]
target = {name = "dose", low = -20, high = 100}
[federation]
sites = 4
""",
    )
    assert (result.task, result.metric) == ("regression", "rmse")
    assert result.initial is not None
    assert result.final.score < result.initial.score, "smaller errors are better, and three rounds learn something"
    # The score is in the target's unit: score it again by hand, on the records that the sites held out.
    held_out = [site.test for site in partition(load(config.data), config.data, 4, config.seed)]
    model = qfed.load_model(tmp_path / "out")
    squares = [(model.predict(test.x) - (-20 + (test.y.astype(float) + 1) / 2 * 120)) ** 2 for test in held_out]
    assert result.final.score == pytest.approx(math.sqrt(np.concatenate(squares).mean()), rel=1e-3)


def test_classification_on_parquet_with_categories_and_a_column_of_sites(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    ward = np.repeat(["ward north", "ward south", "ward/west"], [12, 20, 28])
    smoker = rng.choice(["yes", "no"], 60)
    age = rng.uniform(20, 90, 60)
    ill = np.where(smoker == "yes", "ill", "well")
    pq.write_table(pa.table({"ward": ward, "smoker": smoker, "age": age, "state": ill}), tmp_path / "wards.parquet")
    _, result = run(
        tmp_path,
        """
[data]
source = "wards.parquet"
columns = [
  {name = "smoker", kind = "categorical", categories = ["yes", "no", "unknown"]},
  {name = "age", low = 0, high = 120},
]
target = {name = "state", classes = ["well", "ill"]}
partition = "column"
column = "ward"
[federation]
sites = 3
""",
    )
    assert result.task == "classification"
    assert [site.name for site in result.sites] == ["ward-north", "ward-south", "ward-west"]
    assert [(site.train_records or 0) + (site.test_records or 0) for site in result.sites] == [12, 20, 28]
    assert result.initial is not None
    assert result.final.loss < result.initial.loss


def test_dirichlet_deals_every_record_and_skews(tmp_path: Path) -> None:
    _, result = run(
        tmp_path,
        """
[data]
source = "wine"
partition = "dirichlet"
alpha = 0.3
[federation]
sites = 4
""",
    )
    sizes = [(site.train_records or 0) + (site.test_records or 0) for site in result.sites]
    assert sum(sizes) == 178
    assert max(sizes) > 2 * min(sizes)
    assert result.status == "completed"
    assert result.rounds[-1].survivors == 4


OWN = """
import pennylane as qml

def circuit(inputs, weights, bias):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.BasicEntanglerLayers(weights, wires=range(2))
    qml.RX(bias, wires=0)
    return [qml.expval(qml.PauliZ(w)) for w in range(2)]
"""


def test_a_users_own_circuit(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    text = '[data]\nsource = "wine"\n[federation]\nsites = 3\n' + QUICK.replace(
        "wires = 2", 'wires = 2\ncircuit = "own.py:circuit"\nweight_shapes = {weights = [1, 2], bias = []}'
    )
    (tmp_path / "run.toml").write_text(text)
    config = load_config(tmp_path / "run.toml")
    result = simulate(config, out=tmp_path / "out")
    assert result.initial is not None
    assert result.final.loss < result.initial.loss
    with pytest.raises(ConfigError, match="name it"):
        qfed.load_model(tmp_path / "out")
    model = qfed.load_model(tmp_path / "out", circuit=f"{tmp_path / 'own.py'}:circuit")
    held_out = [site.test for site in partition(load(config.data), config.data, 3, config.seed)]
    right = sum(int((model.predict(test.x).argmax(axis=1) == test.y).sum()) for test in held_out)
    assert result.final.score == right / result.final.records


def test_two_sites_whose_names_become_the_same_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"{i % 10},{'a b' if i < 8 else 'a/b' if i < 16 else 'c'},{i % 2}\n" for i in range(24))
    (tmp_path / "t.csv").write_text("x,site,y\n" + rows)
    with pytest.raises(ConfigError, match="a-b"):
        run(
            tmp_path,
            """
[data]
source = "t.csv"
columns = [{name = "x", low = 0, high = 9}]
target = {name = "y", classes = ["0", "1"]}
partition = "column"
column = "site"
[federation]
sites = 3
""",
        )
    assert not (tmp_path / "out").exists()
