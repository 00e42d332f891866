"""A model comes back as it was saved, or is refused; nothing on disk can run code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qfed.config import ARCHITECTURES, ModelConfig
from qfed.errors import CircuitError, ConfigError, ShapeError
from qfed.models import build, flatten, load_model, save_model, unflatten

CLASSES: dict[str, Any] = {"features": ["a", "b", "c"], "task": "classification", "classes": ["n", "y"], "target": "t"}
VALUES: dict[str, Any] = CLASSES | {"task": "regression", "classes": None}
OWN = """import pennylane as qml
def mine(inputs, theta):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.CNOT(wires=[0, 1])
    qml.RY(theta, wires=1)
    return [qml.expval(qml.PauliZ(w)) for w in range(2)]
"""


def trained(config: ModelConfig, outputs: int = 2, seed: int = 4) -> Any:
    model = build(config, 3, outputs, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3)
    return model


def saved(folder: Path, **changes: Any) -> ModelConfig:
    config = ModelConfig.model_validate({"wires": 2} | changes)
    save_model(folder, config, CLASSES, flatten(trained(config)))
    return config


def test_flat_vector_round_trip() -> None:
    model, other = build(ModelConfig(), 5, 2, seed=1), build(ModelConfig(), 5, 2, seed=2)
    vector = flatten(model)
    assert vector.dtype == np.float32
    assert vector.shape == (5 * 4 + 4 + 32 + 4 * 2 + 2,)
    place = dict(other.named_parameters())["encoder.weight"]
    unflatten(other, vector)
    np.testing.assert_array_equal(flatten(other), vector)
    assert dict(other.named_parameters())["encoder.weight"] is place
    vector[:] = 0
    assert flatten(model).any()
    assert flatten(other).any()


@pytest.mark.parametrize("shape", [(65,), (67,), (66, 1), (0,)])
def test_vector_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"66 parameters, got a vector of shape \("):
        unflatten(build(ModelConfig(), 5, 2, seed=1), np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("kind", ["hybrid", "twin"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_model_of_the_library_comes_back(tmp_path: Path, name: str, kind: str) -> None:
    config = ModelConfig.model_validate({"architecture": name, "kind": kind, "angle_limit": 0.7})
    schema = CLASSES | {"features": [f"pixel {i}" for i in range(64)]}
    model = build(config, 64, 2, seed=4)
    save_model(tmp_path, config, schema, flatten(model))
    x = np.linspace(-1, 1, 192).reshape(3, 64)
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor(x, dtype=torch.float32)), dim=1).numpy()
    loaded = load_model(tmp_path)
    assert loaded.config == config
    np.testing.assert_allclose(loaded.predict(x), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["hybrid", "twin"])
def test_model_comes_back(tmp_path: Path, kind: str) -> None:
    config = saved(tmp_path / "new" / "out", kind=kind)
    assert sorted(file.name for file in (tmp_path / "new" / "out").iterdir()) == ["model.json", "model.npz"]
    x = np.linspace(-1, 1, 12).reshape(4, 3)
    with torch.no_grad():
        expected = torch.softmax(trained(config)(torch.tensor(x, dtype=torch.float32)), dim=1).numpy()
    for path in ("new/out", "new/out/model.json", "new/out/model.npz"):
        model = load_model(tmp_path / path)
        np.testing.assert_allclose(model.predict(x), expected, atol=1e-6)
        np.testing.assert_array_equal(flatten(model.module), flatten(trained(config)))
        assert dict(model.schema) == CLASSES
        assert model.config == config
    np.testing.assert_allclose(model.predict(x).sum(axis=1), 1)
    assert model.predict(np.empty((0, 3))).shape == (0, 2)
    with pytest.raises(ShapeError, match=r"\(N, 3\), got \(3,\)"):
        model.predict(x[0])


def test_regression_answers_in_the_units_of_the_target(tmp_path: Path) -> None:
    config = ModelConfig(wires=2)
    vector, x = flatten(trained(config, 1)), np.linspace(-1, 1, 12).reshape(4, 3)
    save_model(tmp_path / "plain", config, VALUES, vector)
    save_model(tmp_path / "ranged", config, VALUES | {"target_range": [10.0, 30.0]}, vector)
    plain, ranged = load_model(tmp_path / "plain").predict(x), load_model(tmp_path / "ranged").predict(x)
    assert plain.shape == (4,)
    np.testing.assert_allclose(ranged, 20 + 10 * plain)


def test_own_circuit_runs_only_when_the_caller_names_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
    name = f"{tmp_path / 'mine.py'}:mine"
    saved(tmp_path, circuit=name, weight_shapes={"theta": ()})
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"would be run; if you trust it.*circuit="):
        load_model(tmp_path)
    (tmp_path / "moved.py").write_text(OWN, encoding="utf-8")
    assert load_model(tmp_path, circuit=f"{tmp_path / 'moved.py'}:mine").predict(np.zeros((1, 3))).shape == (1, 2)
    (tmp_path / "other.py").write_text(OWN.replace("RY", "RX"), encoding="utf-8")
    with pytest.raises(ConfigError, match="does not give the outputs"):
        load_model(tmp_path, circuit=f"{tmp_path / 'other.py'}:mine")
    (tmp_path / "less.py").write_text(OWN.replace("theta", "phi"), encoding="utf-8")
    with pytest.raises(CircuitError, match="phi"):
        load_model(tmp_path, circuit=f"{tmp_path / 'less.py'}:mine")


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tree = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        change(tree)
        (folder / "model.json").write_text(json.dumps(tree), encoding="utf-8")

    return apply


def arrays(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        with np.load(folder / "model.npz") as archive:
            parts = {name: archive[name] for name in archive.files}
        change(parts)
        np.savez(folder / "model.npz", **parts)

    return apply


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda f: (f / "model.json").unlink(), "cannot read the model"),
        (lambda f: (f / "model.npz").unlink(), "cannot read"),
        (lambda f: (f / "model.json").write_text("{", encoding="utf-8"), "is not JSON"),
        (lambda f: (f / "model.json").write_bytes(b"\xff\xfe"), "is not JSON"),
        (lambda f: (f / "model.json").write_text("[]", encoding="utf-8"), "format='list'"),
        (lambda f: (f / "model.npz").write_bytes(b"PK"), "not a model's parameters"),
        (edit(lambda t: t.update(format=2)), "format=2"),
        (edit(lambda t: t["schema"].update(task="x")), "no usable schema"),
        (edit(lambda t: t["schema"].update(classes=None)), "no usable schema"),
        (edit(lambda t: t.pop("schema")), "no usable schema"),
        (edit(lambda t: t["model"].update(wires=99)), "no usable model"),
        (edit(lambda t: t["model"].update(wires=3)), "does not fit model.json"),
        (edit(lambda t: t["model"].update(angle_limit=0.5)), "does not give the outputs"),
        (arrays(lambda a: a.pop("head.bias")), "does not fit model.json"),
        (arrays(lambda a: a.update({"head.bias": a["head.bias"].astype(np.float64)})), "float32"),
        (arrays(lambda a: a.update({"head.bias": a["head.bias"] * np.float32(np.nan)})), "not finite"),
        (arrays(lambda a: a.update({"head.bias": a["head.bias"] + np.float32(1)})), "does not give the outputs"),
        (arrays(lambda a: a.update({"head.bias": np.array([{}, {}], dtype=object)})), "not a model's parameters"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, damage: Callable[[Path], None], expected: str
) -> None:
    saved(tmp_path)
    damage(tmp_path)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_is_written_for_a_diverged_model(tmp_path: Path) -> None:
    vector = flatten(trained(ModelConfig(wires=2)))
    vector[3] = np.inf
    with pytest.raises(ConfigError, match="not all finite"):
        save_model(tmp_path / "out", ModelConfig(wires=2), CLASSES, vector)
    with pytest.raises(ShapeError):
        save_model(tmp_path / "out", ModelConfig(wires=2), CLASSES, np.zeros(len(vector) - 1))
    assert not (tmp_path / "out").exists()


def test_built_in_circuit_cannot_be_replaced(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ConfigError, match="built-in"):
        load_model(tmp_path, circuit="mine.py:mine")
