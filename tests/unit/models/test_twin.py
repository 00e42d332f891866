"""The twin has exactly as many parameters as the hybrid, uses all of them, and learns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qfed.config import CIRCUITS, ModelConfig
from qfed.models import build, circuit_of, flatten
from qfed.models.twin import Hidden, Twin


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


@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("wires", [1, 2, 4, 7])
@pytest.mark.parametrize("layers", [1, 3])
def test_twin_equals_the_hybrid_in_size(circuit: str, wires: int, layers: int) -> None:
    for inputs, outputs in ((1, 1), (30, 2), (64, 10)):
        sizes = {
            kind: len(
                flatten(build(ModelConfig(kind=kind, circuit=circuit, wires=wires, layers=layers), inputs, outputs, 1))
            )
            for kind in ("hybrid", "twin")
        }
        assert sizes["twin"] == sizes["hybrid"]
        chosen = circuit_of(ModelConfig(circuit=circuit, wires=wires, layers=layers))
        assert sizes["hybrid"] == inputs * wires + wires + chosen.size + chosen.outputs * outputs + outputs


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
