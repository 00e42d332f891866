"""The twin has exactly as many parameters as the hybrid, uses all of them, and learns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qfed.config import ARCHITECTURES, CIRCUITS, ModelConfig
from qfed.models import build, circuit_of, flatten
from qfed.models.twin import Hidden, Twin
from qfed.quantum import QuantumLayer


@given(
    inputs=st.integers(1, 20), outputs=st.integers(1, 40), size=st.integers(0, 700), batch=st.sampled_from([0, 1, 5])
)
def test_hidden_has_exactly_the_asked_number_of_parameters(inputs: int, outputs: int, size: int, batch: int) -> None:
    hidden = Hidden(inputs, outputs, size)
    assert sum(parameter.numel() for parameter in hidden.parameters()) == size
    assert hidden(torch.zeros(batch, inputs)).shape == (batch, outputs)


@given(inputs=st.integers(1, 8), outputs=st.integers(1, 8), size=st.integers(1, 120), seed=st.integers(0, 99))
def test_every_parameter_of_hidden_matters(inputs: int, outputs: int, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = Hidden(inputs, outputs, size)
    with torch.no_grad():
        for parameter in hidden.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    z = torch.randn(16, inputs, generator=generator)
    weights = torch.randn(16, outputs, generator=generator)
    (weights * hidden(z)).sum().backward()
    for parameter in hidden.parameters():
        assert parameter.grad is not None
        assert torch.all(parameter.grad != 0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(ARCHITECTURES)),
    wires=st.integers(1, 7),
    layers=st.integers(1, 3),
    inputs=st.integers(1, 40),
    side=st.sampled_from([4, 8, 28]),
    outputs=st.integers(1, 12),
)
def test_twin_equals_the_hybrid_in_size(
    name: str, wires: int, layers: int, inputs: int, side: int, outputs: int
) -> None:
    """Every model of the library, over generated shapes; batches of 0, 1 and 3 have the same shape from both."""
    wires = 4 if name == "quanvolution" else max(wires, 2) if name == "qcnn" else wires
    inputs = side * side if name in ("cnn", "quanvolution") else inputs
    hybrid, twin = (
        build(
            ModelConfig.model_validate({"architecture": name, "kind": kind, "wires": wires, "layers": layers}),
            inputs,
            outputs,
            seed=1,
        )
        for kind in ("hybrid", "twin")
    )
    assert len(flatten(hybrid)) == len(flatten(twin))
    assert not any(isinstance(module, QuantumLayer) for module in twin.modules())
    for batch in (0, 1, 3):
        x = torch.zeros(batch, inputs)
        assert hybrid(x).shape == twin(x).shape == (batch, outputs)


@pytest.mark.parametrize("circuit", [name for name in CIRCUITS if name != "iqp"])
def test_size_of_a_dense_hybrid_is_the_sum_of_its_parts(circuit: str) -> None:
    config = ModelConfig(circuit=circuit, wires=4, layers=2)
    chosen = circuit_of(config)
    expected = 30 * 4 + 4 + chosen.size + chosen.outputs * 2 + 2
    assert len(flatten(build(config, 30, 2, 1))) == expected


def test_skip_keeps_every_feature() -> None:
    z = torch.tensor([[1.0, 2.0, 4.0]])
    assert Hidden(3, 3, 0)(z).tolist() == [[1, 2, 4]]
    assert Hidden(3, 5, 0)(z).tolist() == [[1, 2, 4, 1, 2]]
    assert Hidden(3, 2, 0)(z).tolist() == [[2.5, 2]]


def test_twin_learns_what_no_linear_model_can() -> None:
    x = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    y = torch.tensor([0, 1, 1, 0])
    config = ModelConfig(kind="twin", wires=4, layers=2)
    model = build(config, 2, 2, seed=3)
    assert isinstance(model, Twin)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    assert model(x).argmax(dim=1).tolist() == y.tolist()
