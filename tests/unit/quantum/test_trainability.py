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
