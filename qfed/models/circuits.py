"""The built-in circuits, as PennyLane quantum functions with the shapes of their weights.

    <Z_w>  of  U(inputs, weights)|0...0>      for every wire w

Every circuit takes `inputs` (W,), or (B, W) where PennyLane broadcasts, in radians, and returns one expectation in
[-1, 1] a wire. The names are those of `qfed.config.CIRCUITS`; `circuit_of` also takes a user's own (`qfed.models.own`).
In all three the last rotations about Z commute with what is measured: their weights have gradient zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pennylane as qml

from qfed.config import ModelConfig
from qfed.models import own

QuantumFunction = Callable[..., Any]


@dataclass(frozen=True)
class Circuit:
    """A quantum function `function(inputs, **weights)`, what it takes and how many numbers it returns."""

    function: QuantumFunction
    weight_shapes: Mapping[str, tuple[int, ...]]
    outputs: int

    @property
    def size(self) -> int:
        """Number of trainable weights."""
        return sum(math.prod(shape) for shape in self.weight_shapes.values())


def reuploading(wires: int, layers: int) -> Circuit:
    """Data re-uploading: the inputs are encoded again in front of every trainable block.

        U = prod_l  CNOT-ring . prod_w Rot(weights[l, w]) RY(inputs[w])

    Source: Perez-Salinas, Cervera-Lierta, Gil-Fuster, Latorre, Quantum 4, 226 (2020). Departures: one feature a wire,
    an RY rotation for the data; CNOT ring instead of CZ. Weights (L, W, 3).
    """

    def function(inputs: Any, weights: Any) -> Any:
        for layer in range(layers):
            for wire in range(wires):
                qml.RY(inputs[..., wire], wires=wire)
                qml.Rot(weights[layer, wire, 0], weights[layer, wire, 1], weights[layer, wire, 2], wires=wire)
            _ring(wires)
        return [qml.expval(qml.PauliZ(wire)) for wire in range(wires)]

    return Circuit(function, {"weights": (layers, wires, 3)}, wires)


def strongly_entangling(wires: int, layers: int) -> Circuit:
    """One encoding by RY, then `qml.StronglyEntanglingLayers` (rings whose CNOTs reach further in each layer).

    Source: Schuld, Bocharov, Svore, Wiebe, Phys. Rev. A 101, 032308 (2020). Departure: angle encoding instead of
    amplitude encoding. Weights (L, W, 3).
    """

    def function(inputs: Any, weights: Any) -> Any:
        qml.AngleEmbedding(inputs, wires=range(wires), rotation="Y")
        qml.StronglyEntanglingLayers(weights, wires=range(wires))
        return [qml.expval(qml.PauliZ(wire)) for wire in range(wires)]

    return Circuit(function, {"weights": (layers, wires, 3)}, wires)


def basic_entangler(wires: int, layers: int) -> Circuit:
    """One encoding by RY, then `qml.BasicEntanglerLayers`: a rotation RX a wire and a CNOT ring, a layer.

    Source: the hardware-efficient ansatz of Kandala et al., Nature 549, 242 (2017). Departure: rotations about one
    axis and a CNOT ring, so a third of the weights. Weights (L, W).
    """

    def function(inputs: Any, weights: Any) -> Any:
        qml.AngleEmbedding(inputs, wires=range(wires), rotation="Y")
        qml.BasicEntanglerLayers(weights, wires=range(wires))
        return [qml.expval(qml.PauliZ(wire)) for wire in range(wires)]

    return Circuit(function, {"weights": (layers, wires)}, wires)


BUILT_IN: Mapping[str, Callable[[int, int], Circuit]] = MappingProxyType(
    {"reuploading": reuploading, "strongly_entangling": strongly_entangling, "basic_entangler": basic_entangler}
)


def circuit_of(config: ModelConfig) -> Circuit:
    """The configured circuit; raises CircuitError for a user's own that does not fit."""
    if config.circuit in BUILT_IN:
        return BUILT_IN[config.circuit](config.wires, config.layers)
    function, shapes = own.load_circuit(config.circuit), dict(config.weight_shapes or {})
    return Circuit(function, shapes, own.check(function, shapes, config.wires, config.circuit))


def _ring(wires: int) -> None:
    # Two wires have one bond, not two.
    for wire in range(wires if wires > 2 else wires - 1):
        qml.CNOT(wires=[wire, (wire + 1) % wires])
