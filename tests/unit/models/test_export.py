"""Exported models: a file that torch, or ONNX Runtime, answers from as qfed predict does, for hybrids and twins."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import nn

from qfed.config import DataConfig, ModelConfig, load_config
from qfed.data import schema_of
from qfed.data.load import load
from qfed.errors import CircuitError, ConfigError
from qfed.models import Model, build, flatten, load_model, save_model
from qfed.models.export import export
from qfed.models.portable import Portable, PortableCircuit, portable
from qfed.quantum import QuantumLayer


def saved(folder: Path, *changes: str) -> Model:
    config = load_config(None, list(changes))
    schema = schema_of(config.data)
    module = build(config.model, schema.inputs, schema.outputs, seed=3)
    generator = torch.Generator().manual_seed(5)
    vector = flatten(module) + 0.4 * torch.randn(len(flatten(module)), generator=generator).numpy()
    save_model(folder, config.model, schema.to_dict(), vector.astype(np.float32))
    return load_model(folder)


@pytest.mark.parametrize("kind", ["hybrid", "twin"])
@pytest.mark.parametrize(
    ("architecture", "source"),
    [
        ("reuploading", "breast_cancer"),
        ("scaled_reuploading", "wine"),
        ("variational", "wine"),
        ("qcnn", "wine"),
        ("kernel", "wine"),
        ("cnn", "digits"),
        ("quanvolution", "digits"),
    ],
)
def test_the_portable_form_of_every_model_answers_as_the_model_does(
    tmp_path: Path, architecture: str, source: str, kind: str
) -> None:
    model = saved(tmp_path, f"model.architecture={architecture}", f"data.source={source}", f"model.kind={kind}")
    records = load(DataConfig(source=source)).records.x[:40]
    with torch.no_grad():
        expected = model.module(torch.from_numpy(records))
        found = portable(model.module)(torch.from_numpy(records))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert expected.std(0).min() > 1e-3  # something that varies was compared


def test_raw_values_go_through_the_public_ranges_in_the_file(tmp_path: Path) -> None:
    """Against the table's own path: a CSV read, encoded and scaled by qfed.data."""
    table = tmp_path / "t.csv"
    rows = ["age,lab,sex", "40,0.5,f", "-3,900,m", ",20,f", "61.25,1000,m"]
    table.write_text("\n".join(row + ",no" if n else row + ",ill" for n, row in enumerate(rows)) + "\n")
    data = DataConfig.model_validate(
        {
            "source": str(table),
            "columns": [
                {"name": "age", "low": 0, "high": 120, "missing": 50},
                {"name": "lab", "low": 0, "high": 1000, "scale": "log"},
                {"name": "sex", "kind": "categorical", "categories": ["f", "m"]},
            ],
            "target": {"name": "ill", "classes": ["no", "yes"]},
        }
    )
    schema, x = schema_of(data), load(data).records.x
    module = build(ModelConfig(), schema.inputs, schema.outputs, seed=1)
    raw = torch.tensor([[40, 0.5, 1, -1], [-3, 900, -1, 1], [float("nan"), 20, 1, -1], [61.25, 1000, -1, 1]])
    form = Portable(module, schema.to_dict())
    assert form.scaling is not None
    np.testing.assert_allclose(form.scaling(raw).numpy(), x, atol=1e-6)
    expected = Model(module, schema.to_dict(), ModelConfig()).predict(x)
    np.testing.assert_allclose(form(raw).numpy(), expected, atol=1e-6)


def test_a_regression_answers_in_the_targets_unit(tmp_path: Path) -> None:
    schema = {
        "features": ["a", "b"],
        "task": "regression",
        "classes": None,
        "target": "days",
        "target_range": [0.0, 30.0],
        "columns": [{"name": "a", "low": 0.0, "high": 1.0}, {"name": "b", "low": 0.0, "high": 1.0}],
    }
    config = ModelConfig()
    save_model(tmp_path, config, schema, flatten(build(config, 2, 1, seed=0)))
    model = load_model(tmp_path)
    raw = torch.tensor([[0.1, 0.9], [0.5, 0.5]])
    found = Portable(model.module, schema)(raw)
    np.testing.assert_allclose(found.detach().numpy(), model.predict((2 * raw - 1).numpy()), atol=1e-5)
    assert export(model, tmp_path / "m.pt2", "torch") < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hybrid", "twin"])
def test_a_torch_file_is_loaded_with_torch_alone(tmp_path: Path, kind: str) -> None:
    model = saved(tmp_path, f"model.kind={kind}", "model.wires=3", "model.layers=1")
    assert export(model, tmp_path / "m.pt2", "torch") < 1e-5
    x = np.random.default_rng(0).uniform(0, 50, (6, 30)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, json, numpy, torch\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'qfed', 'pennylane', 'opacus', 'numba', 'flwr'}:\n"
        "            raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "extra = {'qfed.inputs': ''}\n"
        "module = torch.export.load('m.pt2', extra_files=extra).module()\n"
        "answers = module(torch.from_numpy(numpy.load('x.npy'))).numpy()\n"
        "assert len(json.loads(extra['qfed.inputs'])) == 30\n"
        "numpy.save('y.npy', answers)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True, timeout=120)
    with torch.no_grad():
        expected = Portable(model.module, model.schema)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hybrid", "twin"])
def test_an_onnx_file_answers_in_onnx_runtime(tmp_path: Path, kind: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = saved(tmp_path, f"model.kind={kind}", "model.wires=3", "model.layers=1")
    assert export(model, tmp_path / "m.onnx", "onnx") < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).uniform(0, 50, (6, 30)).astype(np.float32)
    found = session.run(None, {"records": x})[0]
    with torch.no_grad():
        expected = Portable(model.module, model.schema)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["qfed.outputs"]) == ["malignant", "benign"]
    assert not list(tmp_path.glob(".export-*"))


def layer(function: Any, shapes: dict[str, Any], wires: int) -> QuantumLayer:
    torch.manual_seed(0)
    return QuantumLayer(function, shapes, wires=wires)


def test_probabilities_variances_and_tuples_have_a_portable_form() -> None:
    def probabilities(inputs: Any, w: Any) -> Any:
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.CRY(w[0], wires=[0, 1])
        qml.RX(w[1], wires=0)
        return qml.probs(wires=[0, 1])

    def mixed(inputs: Any, w: Any) -> Any:
        qml.RX(inputs[..., 0], wires=0)
        qml.IsingXX(w[0], wires=[0, 1])
        qml.RY(inputs[..., 1] * w[1], wires=1)
        return qml.expval(qml.Z(0) @ qml.X(1)), qml.var(qml.Z(1))

    for function in (probabilities, mixed):
        circuit = layer(function, {"w": (2,)}, 2)
        for shape in ((5, 2), (3, 4, 2)):
            x = torch.randn(shape)
            expected = circuit(x).detach()
            torch.testing.assert_close(PortableCircuit(circuit, 2)(x), expected, atol=1e-5, rtol=1e-5)


def test_what_has_no_portable_form_is_refused_with_the_way_out() -> None:
    def bent(inputs: Any, w: Any) -> Any:
        qml.RX(torch.tanh(3 * inputs[..., 0]), wires=0)
        qml.RY(w[0], wires=0)
        return qml.expval(qml.Z(0))

    def amplitudes(inputs: Any, w: Any) -> Any:
        qml.AmplitudeEmbedding(inputs, wires=[0], normalize=True)
        qml.RY(w[0], wires=0)
        return qml.expval(qml.Z(0))

    def wide(inputs: Any, w: Any) -> Any:
        qml.AngleEmbedding(inputs, wires=range(11))
        for wire in range(11):
            qml.CRY(w[0], wires=[wire, (wire + 1) % 11])
        return qml.expval(qml.Z(0))

    for function, wires, features, told in (
        (bent, 1, 1, "neither affine nor quadratic"),
        (amplitudes, 1, 2, "prepares amplitudes"),
        (wide, 11, 11, "too large"),
    ):
        with pytest.raises(CircuitError, match=told) as error:
            PortableCircuit(layer(function, {"w": (1,)}, wires), features)
        assert "qfed predict" in str(error.value)


def test_an_export_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path, "model.kind=twin")
    monkeypatch.setattr(
        Portable, "forward", lambda self, records: nn.functional.softmax(self.module(records), 1) + 1e-3
    )
    with pytest.raises(ConfigError, match="would answer differently"):
        export(model, tmp_path / "m.pt2", "torch")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.npz"]


def test_names_of_files(tmp_path: Path) -> None:
    model = saved(tmp_path, "model.kind=twin")
    with pytest.raises(ConfigError, match=r"is a file \.pt2"):
        export(model, tmp_path / "m.onnx", "torch")
    with pytest.raises(ConfigError, match="no folder"):
        export(model, tmp_path / "none" / "m.pt2", "torch")
    old = {key: value for key, value in model.schema.items() if key not in ("columns", "made")}
    with pytest.raises(ConfigError, match="older qfed"):
        export(Model(model.module, old, model.config), tmp_path / "m.pt2", "torch")
