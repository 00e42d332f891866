"""Circuits that run on a PennyLane device: correct per-sample gradients, never silently."""

import logging

import pennylane as qml
import pytest
import torch

from qfed.errors import CircuitError
from qfed.quantum import QuantumLayer

SHAPES = {"w": (3,)}
pytestmark = [
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),  # torch's own call
]


def noisy(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.RY(w[0], wires=0)
    qml.DepolarizingChannel(0.2, wires=0)
    qml.CNOT(wires=[0, 1])
    qml.RX(w[1] * w[2], wires=1)
    return [qml.expval(qml.Z(0)), qml.expval(qml.Z(1))]


def measured_midway(inputs, w):
    qml.RX(inputs[..., 0] + w[0], wires=0)
    outcome = qml.measure(0)
    qml.cond(outcome, qml.RY)(w[1] + w[2], wires=1)
    return qml.expval(qml.Z(1))


def unitary(inputs, w):
    qml.AngleEmbedding(inputs, wires=range(2))
    qml.Rot(*w, wires=0)
    qml.CNOT(wires=[0, 1])
    return [qml.expval(qml.Z(0)), qml.expval(qml.Z(1))]


def reference(function, device, x, w):
    node = qml.QNode(function, qml.device(device, wires=3), interface="torch", diff_method="backprop")
    found = node(x, w)
    return torch.stack(list(found)) if isinstance(found, list) else found.reshape(1)


@pytest.mark.parametrize(
    ("function", "device"), [(noisy, "default.mixed"), (measured_midway, "default.qubit")], ids=["noise", "mid"]
)
def test_gradients_of_every_record_are_right_and_it_is_said(function, device, caplog):
    layer = QuantumLayer(function, SHAPES, wires=3, fallback=device).double()
    x = torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    with caplog.at_level(logging.WARNING, logger="qfed.quantum"):
        out = layer(x)
    assert device in caplog.text
    want = torch.stack([reference(function, device, row, layer.w) for row in x]).reshape(out.shape)
    assert torch.allclose(out, want, atol=1e-9)
    weight = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = torch.autograd.grad(out, [x, layer.w], weight)
    wanted = torch.autograd.grad(want, [x, layer.w], weight)
    assert torch.allclose(found[0], wanted[0], atol=1e-5)
    assert torch.allclose(found[1], wanted[1], atol=1e-5)


def test_opacus_gets_per_sample_gradients_of_a_noisy_circuit():
    from opacus.grad_sample import GradSampleModule

    layer = QuantumLayer(noisy, SHAPES, wires=3, fallback="default.mixed").double()
    x = torch.rand(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wrapped = GradSampleModule(layer, loss_reduction="sum")
    wrapped(x).square().sum().backward()
    for i in range(3):
        want = torch.autograd.grad(reference(noisy, "default.mixed", x[i], layer.w).square().sum(), layer.w)[0]
        assert torch.allclose(layer.w.grad_sample[i], want, atol=1e-8)
        assert want.abs().max() > 1e-4


def test_torch_func_through_a_device():
    layer = QuantumLayer(noisy, SHAPES, wires=3, fallback="default.mixed").double()
    x = torch.rand(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss(w, row):
        return torch.func.functional_call(layer, {"w": w}, (row.unsqueeze(0),)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(layer.w.detach(), x)
    for i in range(3):
        want = torch.autograd.grad(reference(noisy, "default.mixed", x[i], layer.w).square().sum(), layer.w)[0]
        assert torch.allclose(found[i], want, atol=1e-8)


def test_an_empty_batch_on_a_device():
    layer = QuantumLayer(noisy, SHAPES, wires=3, fallback="default.mixed")
    out = layer(torch.zeros(0, 2))
    assert out.shape == (0, 2)
    out.sum().backward()
    assert torch.equal(layer.w.grad, torch.zeros(3))


def test_finite_shots_run_on_a_device(caplog):
    device = qml.device("default.qubit", wires=2, seed=5)
    node = qml.set_shots(qml.QNode(unitary, device), 4000)
    exact = QuantumLayer(unitary, SHAPES, wires=2)
    sampled = QuantumLayer(node, SHAPES)
    sampled.load_state_dict(exact.state_dict())
    x = torch.rand(2, 2, generator=torch.Generator().manual_seed(1))
    with caplog.at_level(logging.WARNING, logger="qfed.quantum"):
        noise = (sampled(x) - exact(x)).abs()
    assert "finite shots (4000)" in caplog.text
    assert 0 < noise.max() < 0.1
    named = QuantumLayer(unitary, SHAPES, wires=2, fallback="default.qubit", shots=10)
    fifths = named(x).detach() * 5  # means of ten signs are multiples of 2 / 10
    assert torch.allclose(fifths, fifths.round(), atol=1e-5)


def test_a_qnode_with_transforms_keeps_them(caplog):
    node = qml.transforms.cancel_inverses(qml.QNode(unitary, qml.device("default.qubit", wires=2)))
    layer = QuantumLayer(node, SHAPES)
    with caplog.at_level(logging.WARNING, logger="qfed.quantum"):
        out = layer(torch.rand(2, 2))
    assert "transforms" in caplog.text
    assert out.shape == (2, 2)


@pytest.mark.parametrize("device", ["default.qubit", "lightning.qubit", "default.mixed"])
def test_exact_simulators_are_compiled(device, caplog):
    layer = QuantumLayer(qml.QNode(unitary, qml.device(device, wires=2)), SHAPES)
    with caplog.at_level(logging.WARNING, logger="qfed.quantum"):
        layer(torch.rand(2, 2))
    assert caplog.text == ""


@pytest.mark.parametrize("function", [noisy, measured_midway])
def test_without_a_named_device_it_is_refused(function):
    with pytest.raises(CircuitError, match="name a device"):
        QuantumLayer(function, SHAPES, wires=3)(torch.rand(2, 2))


def test_finite_shots_without_a_device_are_refused():
    with pytest.raises(CircuitError, match="fallback="):
        QuantumLayer(unitary, SHAPES, wires=2, shots=10)(torch.rand(2, 2))


def test_a_device_that_cannot_run_it_says_so():
    with pytest.raises(CircuitError, match=r"device=default\.qubit cannot run"):
        QuantumLayer(noisy, SHAPES, wires=3, fallback="default.qubit")(torch.rand(2, 2))


@pytest.mark.parametrize("measured", [qml.state, lambda: qml.counts(wires=0)])
def test_what_is_not_a_set_of_real_numbers_is_refused(measured):
    def body(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(2))
        qml.Rot(*w, wires=0)
        return measured()

    shots = None if measured is qml.state else 10
    layer = QuantumLayer(body, SHAPES, wires=2, fallback="default.qubit", shots=shots)
    with pytest.raises(CircuitError, match="something else than real numbers"):
        layer(torch.rand(2, 2))
