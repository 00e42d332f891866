"""A user's own circuit is found, tried and used, or refused in one paragraph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qfed.config import ModelConfig
from qfed.errors import CircuitError, ConfigError
from qfed.models import Hybrid, build, circuit_of, flatten, load_circuit

START = "import pennylane as qml\n"
GOOD = START + (
    "def mine(inputs, theta, phi):\n"
    "    qml.AngleEmbedding(inputs, wires=range(3))\n"
    "    for w in range(3):\n"
    "        qml.RY(theta[w], wires=w)\n"
    "    qml.CNOT(wires=[0, 1])\n"
    "    qml.RX(phi, wires=1)\n"
)
SHAPES: dict[str, tuple[int, ...]] = {"theta": (3,), "phi": ()}


def config(folder: Path, source: str, name: str = "mine", **changes: object) -> ModelConfig:
    (folder / "circuits.py").write_text(source, encoding="utf-8")
    tree = {"circuit": f"{folder / 'circuits.py'}:{name}", "weight_shapes": SHAPES, "wires": 3}
    return ModelConfig.model_validate(tree | changes)


@pytest.mark.parametrize(
    ("returned", "outputs"),
    [
        ("qml.expval(qml.PauliZ(0))", 1),
        ("[qml.expval(qml.PauliZ(w)) for w in range(3)]", 3),
        ("qml.expval(qml.PauliZ(0)), qml.expval(qml.PauliX(1))", 2),
        ("qml.probs(wires=[0, 1])", 4),
    ],
)
@pytest.mark.parametrize("kind", ["hybrid", "twin"])
def test_own_circuit_becomes_a_model(tmp_path: Path, returned: str, outputs: int, kind: str) -> None:
    chosen = config(tmp_path, GOOD + f"    return {returned}\n", kind=kind)
    assert circuit_of(chosen).outputs == outputs
    model = build(chosen, 5, 2, seed=1)
    for batch in (0, 1, 4):
        assert model(torch.zeros(batch, 5)).shape == (batch, 2)
    assert len(flatten(model)) == 5 * 3 + 3 + 4 + outputs * 2 + 2


def test_tuple_of_measurements_keeps_its_order(tmp_path: Path) -> None:
    pair = "qml.expval(qml.PauliZ(0)), qml.expval(qml.PauliZ(2))"
    models = [build(config(tmp_path, GOOD + f"    return {r}\n"), 5, 2, seed=1) for r in (pair, f"[{pair}]")]
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    assert isinstance(models[0], Hybrid)
    np.testing.assert_allclose(models[0](x).detach().numpy(), models[1](x).detach().numpy(), atol=1e-6)


def test_qnode_is_taken(tmp_path: Path) -> None:
    source = GOOD.replace("def mine", "@qml.qnode(qml.device('default.qubit', wires=3))\ndef mine")
    model = build(config(tmp_path, source + "    return qml.expval(qml.PauliZ(0))\n"), 5, 2, seed=1)
    assert model(torch.zeros(2, 5)).shape == (2, 2)


def test_function_that_indexes_the_batch_is_taken(tmp_path: Path) -> None:
    source = START + "def mine(inputs, theta, phi):\n    qml.RX(inputs[:, 0] + theta[0] + phi, wires=0)\n" + Z
    assert circuit_of(config(tmp_path, source)).outputs == 1


AUXILIARY = START + (
    "def mine(inputs, theta, phi):\n    qml.RX(inputs[..., 0], wires=0)\n    qml.CNOT(wires=[0, 'aux'])\n"
)
Z = "    return qml.expval(qml.PauliZ(0))\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (GOOD.replace("mine", "mien") + Z, ["no function 'mine'", "did you mean 'mien'"]),
        (START + "mine = 3\n", ["is a int, not a function"]),
        ("import no_such_package\n", ["importing", "ModuleNotFoundError", "no_such_package", "line 1"]),
        (START + "1 / 0\n", ["ZeroDivisionError", "line 2"]),
        ("def mine(:\n", ["SyntaxError"]),
        (START + "def mine(inputs, theta):\n" + Z, ["takes the weights ['theta']", "['phi', 'theta']"]),
        (START + "def mine(x, theta, phi):\n" + Z, ["(x, theta, phi)", "expected (inputs, theta, phi)"]),
        (START + "def mine(inputs, *rest):\n" + Z, ["(inputs, *rest)"]),
        (START + "def mine(inputs, **rest):\n" + Z, ["(inputs, **rest)"]),
        (START + "def mine(inputs, theta, phi=0):\n" + Z, ["default values", "'phi'"]),
        (GOOD.replace("theta[w]", "theta[w, 0]") + Z, ["theta (3,)", "IndexError", "line 5"]),
        (GOOD.replace("wires=1)", "wires=3)") + Z, ["acts on 4 wires", "model.wires=3", "set model.wires = 4"]),
        (AUXILIARY + Z, ["the wires ['aux']", "0 to 2"]),
        (GOOD + "    return None\n", ["returns no measurement"]),
        (GOOD.replace("range(3))", "range(2))") + Z, ["fails with", "ValueError", "line 3"]),
    ],
)  # fmt: skip
def test_faults_of_a_circuit_are_named(tmp_path: Path, source: str, expected: list[str]) -> None:
    chosen = config(tmp_path, source)
    with pytest.raises(CircuitError) as caught:
        build(chosen, 5, 2, seed=1)
    for part in [str(tmp_path / "circuits.py"), *expected]:
        assert part in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def test_qnode_with_a_device_too_large_is_refused(tmp_path: Path) -> None:
    source = GOOD.replace("def mine", "@qml.qnode(qml.device('default.qubit', wires=9))\ndef mine")
    with pytest.raises(CircuitError, match=r"has a device of 9 wires.*model\.wires=3"):
        build(config(tmp_path, source + Z), 5, 2, seed=1)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("circuits.py", "FILE.py:FUNCTION"),
        ("circuits.txt:f", "FILE.py:FUNCTION"),
        ("none.py:f", "there is no file none.py"),
    ],
)
def test_references_that_name_nothing(reference: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_circuit(reference)


def test_two_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "c.py").write_text(f"def f():\n    return {value}\n", encoding="utf-8")
    assert [load_circuit(f"{tmp_path / folder / 'c.py'}:f")() for folder in "ab"] == [1, 2]
