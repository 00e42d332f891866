"""The configured model: shapes, equality with PennyLane, determinism, per-sample gradients."""

from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from qfed.config import CIRCUITS, DataConfig, ModelConfig
from qfed.data import load, partition
from qfed.errors import ShapeError
from qfed.models import Hybrid, build, circuit_of, flatten, loss, score

TRAINED = [name for name in CIRCUITS if name != "iqp"]


@pytest.mark.parametrize("kind", ["hybrid", "twin"])
@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (30, 2), (64, 10)])
def test_shapes_and_dtype(kind: str, batch: int, inputs: int, outputs: int) -> None:
    model = build(ModelConfig.model_validate({"kind": kind, "wires": 3}), inputs, outputs, seed=1)
    out = model(torch.zeros(batch, inputs))
    assert out.shape == (batch, outputs)
    assert out.dtype == torch.float32
    out.sum().backward()


@pytest.mark.parametrize("circuit", TRAINED)
@pytest.mark.parametrize(("wires", "layers"), [(1, 1), (2, 2), (4, 2), (5, 3)])
def test_hybrid_is_the_circuit_that_pennylane_runs(circuit: str, wires: int, layers: int) -> None:
    """Encoder and head by hand in float64 around default.qubit, one record at a time."""
    wires = max(wires, 2) if circuit == "qcnn" else wires  # one wire has no neighbour to convolve with
    config = ModelConfig(circuit=circuit, wires=wires, layers=layers)
    model = build(config, 6, 2, seed=5)
    assert isinstance(model, Hybrid)
    chosen = circuit_of(config)
    qnode = qml.QNode(chosen.function, qml.device("default.qubit", wires=wires))
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    p = {name: value.detach().double() for name, value in model.named_parameters()}
    angles = chosen.angle_limit * torch.tanh(x.double() @ p["encoder.weight"].T + p["encoder.bias"])
    weights = {name: p[f"circuit.{name}"] for name in chosen.weight_shapes}
    expectations = torch.stack([torch.stack(qnode(row, **weights)) for row in angles])
    expected = expectations @ p["head.weight"].T + p["head.bias"]
    np.testing.assert_allclose(model(x).detach().numpy(), expected.numpy(), atol=2e-6)


@pytest.mark.parametrize("circuit", TRAINED)
def test_all_wires_and_all_layers_reach_the_outputs(circuit: str) -> None:
    model = build(ModelConfig(circuit=circuit, wires=4, layers=2), 4, 2, seed=1)
    with torch.no_grad():  # away from the special angles of the start
        for parameter in model.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.7
            )
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    torch.autograd.backward((model(x) * torch.randn(8, 2, generator=torch.Generator().manual_seed(2))).sum())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        silent = parameter.grad.abs() < 1e-6
        if name == "circuit.weights" and circuit == "strongly_entangling":
            assert silent[-1, :, 2].all()  # the last rotations about Z commute with what is measured
            silent[-1, :, 2] = False
        if name == "circuit.filters":
            assert silent[-1, 8]  # and so does the last one on a wire that then only controls
            silent[-1, 8] = False
        assert not silent.any(), name


@pytest.mark.parametrize("kind", ["hybrid", "twin"])
def test_build_depends_on_the_seed_alone_and_leaves_the_global_generator(kind: str) -> None:
    config = ModelConfig.model_validate({"kind": kind})
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = flatten(build(config, 5, 2, seed=7))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, flatten(build(config, 5, 2, seed=7)))
    assert not np.array_equal(first, flatten(build(config, 5, 2, seed=8)))


def test_hybrid_and_twin_start_from_the_same_encoder() -> None:
    hybrid, twin = (build(ModelConfig.model_validate({"kind": kind}), 5, 2, seed=7) for kind in ("hybrid", "twin"))
    a, b = dict(hybrid.named_parameters()), dict(twin.named_parameters())
    assert torch.equal(a["encoder.weight"], b["encoder.weight"])
    assert torch.equal(a["encoder.bias"], b["encoder.bias"])


def test_circuit_starts_near_the_identity() -> None:
    weights = dict(build(ModelConfig(wires=8, layers=8), 5, 2, seed=7).named_parameters())["circuit.weights"]
    spread = float(weights.detach().std())
    assert 0.08 < spread < 0.125  # 192 draws: five standard errors are 26 %
    assert abs(float(weights.detach().mean())) < 0.05


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ShapeError, match="inputs=0"):
        build(ModelConfig(), 0, 2, seed=1)


def one_at_a_time(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    rows: dict[str, list[torch.Tensor]] = {name: [] for name, _ in model.named_parameters()}
    for n in range(len(x)):
        model.zero_grad()
        torch.autograd.backward(loss("classification")(model(x[n : n + 1]), y[n : n + 1]).sum())
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            rows[name].append(parameter.grad.clone())
    model.zero_grad()
    return {name: torch.stack(parts) for name, parts in rows.items()}


@pytest.mark.parametrize("kind", ["hybrid", "twin"])
@pytest.mark.parametrize("circuit", TRAINED)
def test_torch_func_gives_the_gradient_of_each_record(kind: str, circuit: str) -> None:
    model = build(ModelConfig.model_validate({"kind": kind, "circuit": circuit}), 6, 3, seed=1)
    x, y = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1, 0])
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def of_one(p: dict[str, torch.Tensor], record: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return loss("classification")(functional_call(model, p, (record[None],)), label[None])[0]

    found = vmap(grad(of_one), in_dims=(None, 0, 0))(parameters, x, y)
    for name, expected in one_at_a_time(model, x, y).items():
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["hybrid", "twin"])
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_opacus_gives_the_gradient_of_each_record(kind: str) -> None:
    """Opacus' hooks on the whole model, for batches of 5, 1 and 0. Inputs need no gradient, which torch remarks on."""
    from opacus.grad_sample import GradSampleModule

    model = build(ModelConfig.model_validate({"kind": kind}), 6, 3, seed=1)
    x, y = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1, 0])
    expected = one_at_a_time(model, x, y)
    wrapped = GradSampleModule(build(ModelConfig.model_validate({"kind": kind}), 6, 3, seed=1), loss_reduction="sum")
    for batch in (5, 1, 0):
        wrapped.zero_grad(set_to_none=True)
        for parameter in wrapped.parameters():
            parameter.grad_sample = None
        torch.autograd.backward(loss("classification")(wrapped(x[:batch]), y[:batch]).sum())
        for name, parameter in wrapped._module.named_parameters():
            sample = parameter.grad_sample
            assert sample.shape == (batch, *parameter.shape)
            torch.testing.assert_close(sample, expected[name][:batch], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["hybrid", "twin"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_learn_breast_cancer_without_privacy(kind: str, seed: int) -> None:
    """Held-out accuracy of the default shapes, after 150 minibatches of 64."""
    [site] = partition(load(DataConfig()), DataConfig(), 1, seed)
    x, y = torch.from_numpy(site.train.x), torch.from_numpy(site.train.y)
    model = build(ModelConfig.model_validate({"kind": kind}), 30, 2, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(150):
        chosen = torch.randperm(len(x), generator=generator)[:64]
        optimizer.zero_grad()
        torch.autograd.backward(loss("classification")(model(x[chosen]), y[chosen]).mean())
        optimizer.step()
    right, records = score("classification", model(torch.from_numpy(site.test.x)), site.test.y)
    assert right / records >= 0.93
