"""Whether the configured circuit has gradients to learn from: the variances of `qfed.quantum.trainability`.

Judged twice: over the full circle, where noise and long training may carry the weights, and around the initial weights,
where training starts. Inputs range over the angles that the model gives.     Cost  a few sweeps of the kernel
"""

from __future__ import annotations

import math

from torch import nn

from qfed.config import ModelConfig
from qfed.models.circuits import circuit_of
from qfed.quantum import QuantumLayer, Trainability, trainability
from qfed.quantum.compiled import Compiled

_AMPLITUDES = 2**14
"""Draws times amplitudes: wide circuits, whose sweeps cost more, get fewer draws."""


def gradients_of(layer: QuantumLayer, config: ModelConfig, *, start: bool = False) -> Trainability:
    """Over the full circle, or (`start`) around the layer's present weights; warns of a barren plateau."""
    limit = circuit_of(config).angle_limit if config.angle_limit is None else config.angle_limit
    return trainability(
        layer,
        config.wires,
        draws=max(8, min(32, _AMPLITUDES >> config.wires)),
        weight_range=math.sqrt(12) * config.initial_stddev if start else 2 * math.pi,
        input_range=2 * limit,
        around_present=start,
    )


def warn_of_plateau(module: nn.Module, config: ModelConfig) -> None:
    """Log a warning when the model's circuit is barren; circuits that run on a device are too slow to try."""
    for layer in module.modules():
        if isinstance(layer, QuantumLayer) and isinstance(layer.runner(config.wires), Compiled):
            gradients_of(layer, config)
