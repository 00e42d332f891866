"""A configured model: the hybrid (encoder, circuit, head) or its classical twin.

    out = H . circuit(a tanh(E x + e)) + h,      a = pi / 3

Shapes  x (B, F) -> angles (B, W) in (-a, a) -> expectations (B, M) in [-1, 1] -> out (B, O), all float32; O is one
logit a class, or one value. B may be 0. With more features than wires the encoder reduces them.

The bound a is chosen for training under differential privacy, whose noise is as large in every coordinate: a circuit at
a = pi turns noise in the encoder into angles three times as fast as at pi / 3 (figures: the commit that set it).

Initial weights depend on `seed` alone: linear layers as torch initialises them (uniform within 1/sqrt(fan-in)); circuit
weights are normal with standard deviation 0.1, near the identity. Random angles over the full circle make gradients
vanish exponentially in the number of wires (McClean et al., Nature Communications 9, 4812, 2018); circuits that start
near the identity, or with small Gaussian angles, do not start on that plateau (Grant et al., Quantum 3, 214, 2019;
Zhang et al., NeurIPS 2022, "Escaping from the barren plateau via Gaussian initializations").
"""

from __future__ import annotations

import math

import pennylane as qml
import torch
from torch import Tensor, nn

from qfed.config import ModelConfig
from qfed.errors import ShapeError
from qfed.models.circuits import Circuit, circuit_of
from qfed.models.twin import Twin
from qfed.quantum import QuantumLayer

ANGLE_LIMIT = math.pi / 3
"""Largest angle that the encoder gives, in radians."""
ANGLE_STDDEV = 0.1
"""Standard deviation of initial circuit weights, in radians."""


class Hybrid(nn.Module):
    """x (B, F) -> (B, O): linear encoder to angles, circuit, linear head."""

    def __init__(self, inputs: int, outputs: int, wires: int, circuit: Circuit) -> None:
        super().__init__()
        self.encoder = nn.Linear(inputs, wires)
        # A QNode brings its own wires, in its device.
        own_wires = None if isinstance(circuit.function, qml.QNode) else wires
        self.circuit = QuantumLayer(circuit.function, dict(circuit.weight_shapes), wires=own_wires)
        self.head = nn.Linear(circuit.outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        angles = ANGLE_LIMIT * torch.tanh(self.encoder(x))
        measured = self.circuit(angles)
        # As TorchLayer: one number lacks the last axis, a tuple of measurements comes with an axis of its own in front.
        if measured.dim() < angles.dim():
            measured = measured.unsqueeze(-1)
        elif measured.dim() > angles.dim():
            measured = measured.movedim(0, -2).flatten(-2)
        out: Tensor = self.head(measured)
        return out


def build(config: ModelConfig, inputs: int, outputs: int, seed: int) -> nn.Module:
    """The model for `inputs` features and `outputs` logits (or one value), the same for the same seed.

    Leaves torch's global generator as it was. Raises CircuitError for a circuit that does not fit, ShapeError for
    sizes below one.
    """
    if inputs < 1 or outputs < 1:
        raise ShapeError(f"a model needs at least one input and one output, got inputs={inputs}, outputs={outputs}")
    return assemble(config, circuit_of(config), inputs, outputs, seed)


def assemble(config: ModelConfig, circuit: Circuit, inputs: int, outputs: int, seed: int) -> nn.Module:
    """`build` with the circuit at hand."""
    # Layers draw weights from the global generator as they are made; those draws are thrown away.
    with torch.random.fork_rng(devices=[]):
        model: nn.Module
        if config.kind == "twin":
            model = Twin(inputs, outputs, config.wires, circuit.outputs, circuit.size)
        else:
            model = Hybrid(inputs, outputs, config.wires, circuit)
            # Compiled now, by an empty batch, so that a circuit that cannot be is refused before any training.
            model(torch.zeros(0, inputs))
    _initialise(model, torch.Generator().manual_seed(seed))
    return model.to(torch.float32)


@torch.no_grad()
def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights, the encoder's first, so that a hybrid and its twin start from the same encoder."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, QuantumLayer):
            for parameter in module.parameters():
                parameter.normal_(0.0, ANGLE_STDDEV, generator=generator)
