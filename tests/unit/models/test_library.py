"""Every model of the library: traceable, copyable, one gradient a record; and what is special about each."""

from __future__ import annotations

import copy
import math

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import fx, nn

from qfed.config import ARCHITECTURES, ModelConfig
from qfed.errors import ConfigError
from qfed.models import build, circuit_of, flatten, loss
from qfed.models.library import LIBRARY
from qfed.models.qcnn import qcnn_layout
from qfed.quantum import QuantumLayer

MODELS = [(name, kind) for name in ARCHITECTURES for kind in ("hybrid", "twin")]


class Tracer(fx.Tracer):
    """Keeps circuits whole, as layers of torch are kept."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, QuantumLayer) or super().is_leaf_module(m, module_qualified_name)


def model_of(name: str, kind: str = "hybrid", inputs: int = 64, outputs: int = 10, **changes: object) -> nn.Module:
    config = ModelConfig.model_validate({"architecture": name, "kind": kind} | changes)
    return build(config, inputs, outputs, seed=3)


def records(batch: int, inputs: int = 64) -> torch.Tensor:
    return torch.rand(batch, inputs, generator=torch.Generator().manual_seed(batch)) * 2 - 1


def test_the_library_tells_about_every_model_that_the_configuration_names() -> None:
    assert list(LIBRARY) == list(ARCHITECTURES)


@pytest.mark.parametrize(("name", "kind"), MODELS)
@pytest.mark.parametrize("inputs", [64, 784])
def test_a_tracer_sees_through_every_model(name: str, kind: str, inputs: int) -> None:
    model = model_of(name, kind, inputs)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    traced = fx.GraphModule(model, Tracer().trace(model))
    for batch in (0, 1, 3):
        out = model(records(batch, inputs))
        assert out.shape == (batch, 10)
        assert torch.equal(traced(records(batch, inputs)), out)


@pytest.mark.parametrize(("name", "kind"), MODELS)
def test_copies_are_models_of_their_own(name: str, kind: str) -> None:
    model = model_of(name, kind)
    x = records(3)
    other = copy.deepcopy(model)
    loaded = model_of(name, kind, initial_stddev=0.3)
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    assert torch.equal(loaded(x), model(x))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    assert not torch.equal(other(x), model(x))


@pytest.mark.parametrize(("name", "kind"), MODELS)
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_opacus_gives_the_gradient_of_each_record(name: str, kind: str) -> None:
    from opacus.grad_sample import GradSampleModule
    from opacus.validators import ModuleValidator

    model = model_of(name, kind)
    assert ModuleValidator.validate(model, strict=False) == []
    x, y = records(3), torch.tensor([0, 7, 3])
    wrapped = GradSampleModule(copy.deepcopy(model), loss_reduction="sum")
    torch.autograd.backward(loss("classification")(wrapped(x), y).sum())
    for n in range(3):
        model.zero_grad()
        torch.autograd.backward(loss("classification")(model(x[n : n + 1]), y[n : n + 1]).sum())
        for parameter, expected in zip(wrapped.parameters(), model.parameters(), strict=True):
            assert expected.grad is not None
            torch.testing.assert_close(parameter.grad_sample[n], expected.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_record_does_not_change_with_its_batch(name: str) -> None:
    model = model_of(name)
    x = records(4)
    np.testing.assert_allclose(model(x)[1:2].detach(), model(x[1:2]).detach(), atol=1e-5)


@pytest.mark.parametrize("circuit", ["reuploading", "scaled_reuploading", "strongly_entangling"])
@pytest.mark.parametrize("layers", [1, 3])
def test_circuits_start_as_the_sine_of_their_angles(circuit: str, layers: int) -> None:
    """At the centre of the initial weights the trained part is the identity, and no wire's data reaches another."""
    chosen = circuit_of(ModelConfig(circuit=circuit, wires=3, layers=layers))
    weights = {name: torch.full(shape, chosen.centres.get(name, 0.0)) for name, shape in chosen.weight_shapes.items()}
    qnode = qml.QNode(chosen.function, qml.device("default.qubit", wires=3))
    angles = torch.tensor([0.3, -0.2, 0.4])
    uploads = 1 if circuit == "strongly_entangling" else layers
    found = torch.stack(list(qnode(angles, **weights)))
    torch.testing.assert_close(found, torch.sin(uploads * angles).double(), atol=1e-6, rtol=0)
    assert chosen.angle_limit * uploads == pytest.approx(math.pi / 2)


@pytest.mark.parametrize(
    ("wires", "layers", "left", "stages"),
    [(2, 1, (1,), 1), (3, 5, (2,), 2), (8, 2, (3, 7), 2), (8, 9, (7,), 3), (16, 3, (7, 15), 3)],
)
def test_a_quantum_convolution_halves_its_wires(wires: int, layers: int, left: tuple[int, ...], stages: int) -> None:
    layout = qcnn_layout(wires, layers)
    assert layout.left == left
    assert len(layout.stages) == stages
    first = layout.stages[0][0]
    assert sorted({wire for pair in first for wire in pair}) == list(range(wires))
    assert len(set(first)) == len(first)


def test_filters_are_shared_by_all_pairs() -> None:
    sizes = {circuit_of(ModelConfig(circuit="qcnn", wires=wires, layers=2)).size for wires in (4, 8, 16)}
    assert sizes == {2 * 17}


def test_kernel_features_are_fixed_and_zero_at_the_origin() -> None:
    model = model_of("kernel")
    assert [name for name, _ in model.named_parameters()] == ["head.weight", "head.bias"]
    assert [name for name in model.state_dict() if "head" not in name] == []
    out = model(torch.zeros(1, 64))
    np.testing.assert_allclose(out[0].detach(), dict(model.named_parameters())["head.bias"].detach(), atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
def test_no_kernel_feature_is_always_zero(layers: int) -> None:
    model = model_of("kernel", inputs=8, layers=layers)
    features = model.features(0.8 * records(50, 8).reshape(50, 2, 4))  # type: ignore[operator]
    assert (features.flatten(1).std(dim=0) > 0.01).all()


@pytest.mark.parametrize("name", ["cnn", "quanvolution"])
@pytest.mark.parametrize("inputs", [30, 36, 63])
def test_records_that_are_no_image_are_refused(name: str, inputs: int) -> None:
    with pytest.raises(ConfigError, match=rf"square images.*got {inputs} features"):
        model_of(name, inputs=inputs)


def test_a_patch_has_four_wires() -> None:
    with pytest.raises(ConfigError, match=r"set model\.wires = 4"):
        model_of("quanvolution", wires=3)


def test_a_quanvolution_sees_patches_of_neighbouring_pixels() -> None:
    """A changed pixel changes what is measured on its own patch only."""
    model = model_of("quanvolution")
    seen: list[torch.Tensor] = []
    model.flat.register_forward_hook(lambda _module, _inputs, out: seen.append(out))  # type: ignore[operator, union-attr]
    x = records(1)
    model(x)
    x[0, 8 * 3 + 5] += 0.5  # row 3, column 5: patch row 1, column 2
    model(x)
    changed = (seen[0] - seen[1]).abs().amax(dim=2)[0] > 1e-6
    assert changed.nonzero().flatten().tolist() == [4 * 1 + 2]


def test_angle_limit_and_initial_spread_are_taken_from_the_configuration() -> None:
    narrow, wide = model_of("reuploading", angle_limit=0.1), model_of("reuploading", angle_limit=0.5)
    assert np.array_equal(flatten(narrow), flatten(wide))
    assert not torch.equal(narrow(records(2)), wide(records(2)))
    spread = (
        dict(model_of("reuploading", wires=8, initial_stddev=0.5).named_parameters())["circuit.weights"].detach().std()
    )
    assert 0.35 < float(spread) < 0.65
    scales = dict(model_of("scaled_reuploading", wires=8).named_parameters())["circuit.scales"].detach()
    assert 0.9 < float(scales.mean()) < 1.1
