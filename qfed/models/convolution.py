"""Models for square images of one channel: a convolutional front end, and a circuit as the convolution itself.

    cnn           out = dense(f(x)),   f = pool relu groupnorm conv, twice      dense: the hybrid, or its twin
    quanvolution  out = H . [circuit((pi / 2) a patch)  for every patch] + h    patches of 2 x 2, each once

Shapes  x (B, S^2), row by row, S a multiple of 4 (8 x 8, 28 x 28) -> (B, O); a patch's 4 pixels are 4 wires
Source  cnn: a front end before a circuit as in Mari et al., Quantum 4, 340 (2020), trained together with it. Departure:
        GroupNorm (Wu, He, ECCV 2018), since batch normalisation mixes records and has no gradient of one record.
        quanvolution: Henderson, Shakya, Pradhan, Cook, Quantum Mach. Intell. 2, 2 (2020). Departures: the circuit is
        trained instead of drawn at random, pixels are angles instead of bits, one layer.
The twin has a network of equal size in the circuit's place.     Errors  ConfigError when records are no such image
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from qfed.errors import ConfigError
from qfed.models.circuits import Circuit
from qfed.models.hybrid import Flat, quantum_layer
from qfed.models.twin import Hidden

CHANNELS = (4, 8)
PATCH = 4
"""Pixels of a patch of 2 x 2, so wires of its circuit."""


def side_of(inputs: int, architecture: str) -> int:
    """The side of a square image of `inputs` pixels; raises ConfigError."""
    side = math.isqrt(inputs)
    if side * side != inputs or side % 4:
        raise ConfigError(
            f"model.architecture={architecture!r} takes square images of one channel with a side that is a multiple of "
            f"4 (64 features for 8 x 8, 784 for 28 x 28), got {inputs} features; use 'dense' for other records"
        )
    return side


class Convolutions(nn.Module):
    """x (B, S^2) -> (B, 8 (S / 4)^2): two convolutions of 3 x 3, each normalised by group and pooled by 2."""

    def __init__(self, side: int) -> None:
        super().__init__()
        first, second = CHANNELS
        self.side = side
        self.conv1 = nn.Conv2d(1, first, 3, padding=1)
        self.norm1 = nn.GroupNorm(2, first)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.norm2 = nn.GroupNorm(2, second)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(2)
        self.flatten = nn.Flatten()

    @property
    def features(self) -> int:
        """Numbers that come out of a record."""
        return CHANNELS[1] * (self.side // 4) ** 2

    def forward(self, x: Tensor) -> Tensor:
        image = x.reshape(-1, 1, self.side, self.side)
        half = self.pool(self.relu(self.norm1(self.conv1(image))))
        quarter = self.pool(self.relu(self.norm2(self.conv2(half))))
        out: Tensor = self.flatten(quarter)
        return out


class Convolutional(nn.Module):
    """x (B, S^2) -> (B, O): the front end, then a dense model (hybrid or twin) of its features."""

    def __init__(self, front: Convolutions, dense: nn.Module) -> None:
        super().__init__()
        self.front = front
        self.dense = dense

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(self.front(x))
        return out


class Quanvolution(nn.Module):
    """x (B, S^2) -> (B, O): a circuit (or, without one, a network of `size` weights) on every patch, a linear head."""

    def __init__(self, side: int, outputs: int, circuit: Circuit, angle_limit: float, *, twin: bool) -> None:
        super().__init__()
        self.side = side
        self.angle_limit = angle_limit
        if twin:
            self.circuit: nn.Module = Hidden(PATCH, circuit.outputs, circuit.size)
            self.flat: nn.Module = nn.Identity()
        else:
            layer = quantum_layer(circuit, PATCH)
            self.circuit, self.flat = layer, Flat(layer, PATCH)
        self.head = nn.Linear(circuit.outputs * (side // 2) ** 2, outputs)

    def forward(self, x: Tensor) -> Tensor:
        half = self.side // 2
        # Not PixelUnshuffle, which gives an empty batch another shape.
        patches = x.reshape(-1, half, 2, half, 2).transpose(2, 3).reshape(-1, half * half, PATCH)
        angles = self.angle_limit * patches
        out: Tensor = self.head(self.flat(self.circuit(angles)).flatten(1))
        return out
