"""Gradient variances tell a trainable circuit from a barren plateau."""

import logging
import math

import pennylane as qml
import pytest
import torch

from qfed.errors import CircuitError
from qfed.quantum import QuantumLayer, trainability


def layer(wires, layers, observable):
    def circuit(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(wires))
        qml.StronglyEntanglingLayers(w, wires=range(wires))
        return qml.expval(observable())

    return QuantumLayer(circuit, {"w": (layers, wires, 3)}, wires=wires)


def measure(found, features, **settings):
    return trainability(found, features, generator=torch.Generator().manual_seed(3), draws=30, **settings)


def test_one_rotation_has_the_variance_that_calculus_says():
    def circuit(inputs, w):
        qml.RX(w[0], wires=0)
        return qml.expval(qml.Z(0))

    found = trainability(
        QuantumLayer(circuit, {"w": (1,)}, wires=1), 1, generator=torch.Generator().manual_seed(1), draws=3000
    )
    assert abs(found.largest - 0.5) < 0.03  # Var of -sin(theta), theta uniform
    assert not found.barren


def test_a_deep_wide_circuit_is_barren_and_it_is_said(caplog):
    with caplog.at_level(logging.WARNING, logger="qfed.quantum"):
        found = measure(layer(11, 12, lambda: qml.Z(0) @ qml.Z(1)), 11)
    assert found.barren
    assert "barren plateau" in caplog.text
    assert found.largest < 3 * found.random_circuit


def test_a_shallow_circuit_with_a_local_observable_is_not(caplog):
    def circuit(inputs, w):
        qml.AngleEmbedding(inputs, wires=range(11))
        qml.AngleEmbedding(w, wires=range(11), rotation="Y")
        for i in range(0, 10, 2):
            qml.CNOT(wires=[i, i + 1])
        return [qml.expval(qml.Z(i)) for i in range(11)]

    with caplog.at_level(logging.WARNING, logger="qfed.quantum"):
        found = measure(QuantumLayer(circuit, {"w": (11,)}, wires=11), 11)
    assert not found.barren
    assert caplog.text == ""


def test_a_global_word_is_barren_even_when_shallow():
    assert measure(layer(11, 1, lambda: qml.Z(0)), 11).barren  # the ring of CNOTs spreads Z over all wires


def test_small_angles_keep_gradients():
    circuit = layer(8, 10, lambda: qml.Z(0))
    assert measure(circuit, 8, weight_range=0.05).largest > 5 * measure(circuit, 8).largest


def test_the_same_seed_gives_the_same_figures():
    circuit = layer(3, 1, lambda: qml.Z(0))
    assert torch.equal(measure(circuit, 3).variances, measure(circuit, 3).variances)
    assert measure(circuit, 3).random_circuit == pytest.approx(1 / 9)
    assert math.isfinite(measure(circuit, 3).largest)


def test_one_draw_is_refused():
    with pytest.raises(CircuitError, match="draws=1"):
        trainability(layer(2, 1, lambda: qml.Z(0)), 2, generator=torch.Generator(), draws=1)


def test_features_are_those_it_ran_with_or_one_a_wire_or_an_amplitude_each():
    def amplitudes(inputs, w):
        qml.AmplitudeEmbedding(inputs, wires=range(2), normalize=True)
        qml.BasicEntanglerLayers(w, wires=range(2))
        return qml.expval(qml.Z(0))

    circuit = layer(3, 1, lambda: qml.Z(0))
    assert torch.equal(trainability(circuit).variances, trainability(circuit, 3).variances)
    assert trainability(QuantumLayer(amplitudes, {"w": (1, 2)}, wires=2)).variances.shape == (2,)
    ran = layer(3, 1, lambda: qml.Z(0))
    ran(torch.zeros(1, 2))
    seeded = trainability(layer(3, 1, lambda: qml.Z(0)), 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(trainability(ran).variances, seeded.variances)


def test_features_that_cannot_be_told_are_asked_for():
    def circuit(inputs, w):
        qml.RX(inputs[..., 6] * w[0], wires=0)
        return qml.expval(qml.Z(0))

    with pytest.raises(CircuitError, match=r"features=\.\.\."):
        trainability(QuantumLayer(circuit, {"w": (2,)}, wires=1))
    node = qml.QNode(circuit, qml.device("default.qubit"))
    with pytest.raises(CircuitError, match=r"features=\.\.\."):
        trainability(QuantumLayer(node, {"w": (2,)}))


def test_the_start_is_judged_around_the_present_weights():
    def circuit(inputs, w):
        qml.RX(w[0], wires=0)
        return qml.expval(qml.Z(0))

    flat = QuantumLayer(circuit, {"w": (1,)}, wires=1, init_method={"w": torch.tensor([math.pi / 2])})
    assert trainability(flat, 1, weight_range=0.02, around_present=True).largest < 1e-6  # -sin is flat there
    assert trainability(flat, 1).largest == pytest.approx(0.5, abs=0.1)
    assert flat.w.item() == pytest.approx(math.pi / 2)


def test_a_circuit_without_weights_is_not_barren(caplog):
    def circuit(inputs):
        qml.AngleEmbedding(inputs, wires=range(2))
        return qml.expval(qml.Z(0))

    with caplog.at_level(logging.WARNING, logger="qfed.quantum"):
        assert not trainability(QuantumLayer(circuit, {}, wires=2)).barren
    assert caplog.text == ""


def test_what_is_no_layer_is_refused():
    with pytest.raises(CircuitError, match="circuit=Linear"):
        trainability(torch.nn.Linear(2, 2))
