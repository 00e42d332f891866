"""The dense hybrid model: encoder, circuit, head.

    out = H . circuit(a tanh(E x + e)) + h

Shapes  x (B, F) -> angles (B, W) in (-a, a) -> expectations (B, M) in [-1, 1] -> out (B, O), all float32; O is one
logit a class, or one value. B may be 0. With more features than wires the encoder reduces them.

The bound a (`Circuit.angle_limit`, or `model.angle_limit`) is chosen for training under differential privacy, whose
noise is as large in every coordinate: data turn a wire by at most a quarter turn over all encodings, where sine is
monotone and noise in the encoder is not wound up. torch.fx can trace the model: no branch hangs on a value.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qfed.models.circuits import Circuit
from qfed.quantum import QuantumLayer


class Flat(nn.Module):
    """What a circuit returns for angles (..., W) -> (..., M), whatever form the circuit returns it in."""

    def __init__(self, layer: QuantumLayer, wires: int) -> None:
        super().__init__()
        # Compiled now, so that a circuit that cannot be is refused before any training.
        layout = layer.runner(wires).layout(wires)
        self.form = "stack" if layout.stacks else layout.returns

    def forward(self, measured: Tensor) -> Tensor:
        # As TorchLayer: one number lacks the last axis, a tuple of measurements comes with an axis of its own in front.
        if self.form == "scalar":
            return measured.unsqueeze(-1)
        if self.form == "stack":
            return measured.movedim(0, -2).flatten(-2)
        return measured


def quantum_layer(circuit: Circuit, wires: int) -> QuantumLayer:
    """The circuit as a layer; a QNode brings its own wires, in its device."""
    import pennylane as qml

    own_wires = None if isinstance(circuit.function, qml.QNode) else wires
    return QuantumLayer(circuit.function, dict(circuit.weight_shapes), wires=own_wires)


class Hybrid(nn.Module):
    """x (B, F) -> (B, O): linear encoder to angles, circuit, linear head."""

    def __init__(self, inputs: int, outputs: int, wires: int, circuit: Circuit, angle_limit: float) -> None:
        super().__init__()
        self.encoder = nn.Linear(inputs, wires)
        self.angle_limit = angle_limit
        self.circuit = quantum_layer(circuit, wires)
        self.flat = Flat(self.circuit, wires)
        self.head = nn.Linear(circuit.outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        angles = self.angle_limit * torch.tanh(self.encoder(x))
        out: Tensor = self.head(self.flat(self.circuit(angles)))
        return out
