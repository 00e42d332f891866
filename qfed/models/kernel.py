"""A linear model on fixed quantum features, and its classical twin on as many fixed classical ones.

    features  <P>(a x_g) - <P>(0)   for P = X, Y (and Z) of every wire of the circuit iqp, for every group g of W
              coordinates of x
    twin      z, z_w z_(w+1) (and z^2)   for z = a x_g
    out       H . features + h

The reduced density matrices of single wires are the features of the projected quantum kernel; only H and h are trained,
so the objective is convex, there is no plateau, and noise added for privacy never turns an angle. What the features are
at x = 0, a public constant, is taken away: it would fill the norm to which every record's gradient is clipped.
Source  features: Huang et al., Nat. Commun. 12, 2631 (2021); map: Havlicek et al., Nature 567, 209 (2019). Departures:
        the linear kernel of the reduced states instead of a Gaussian of it; groups of W coordinates instead of one
        circuit on all, whose features would concentrate (Thanasilp et al., Nat. Commun. 15, 5200, 2024); the angle a
        is the kernel's bandwidth (Shaydulin, Wild, Phys. Rev. A 106, 042407, 2022).
        twin: a polynomial of second degree in the same coordinates, which is what the map is for small angles.
Shapes  x (B, F) -> (B, O); the last group is filled up with zeros
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qfed.models.circuits import Circuit
from qfed.models.hybrid import quantum_layer


class QuantumFeatures(nn.Module):
    """Angles (B, G, W) -> (B, G, M)."""

    def __init__(self, wires: int, circuit: Circuit) -> None:
        super().__init__()
        self.map = quantum_layer(circuit, wires)
        self.register_buffer("origin", self.map(torch.zeros(wires)).detach(), persistent=False)

    def forward(self, angles: Tensor) -> Tensor:
        out: Tensor = self.map(angles) - self.origin
        return out


class PolynomialFeatures(nn.Module):
    """z (B, G, W) -> (B, G, 2 W), or 3 W with squares."""

    def __init__(self, *, squares: bool) -> None:
        super().__init__()
        self.squares = squares

    def forward(self, z: Tensor) -> Tensor:
        parts = [z, z * z.roll(-1, -1)]
        return torch.cat([*parts, z * z] if self.squares else parts, -1)


class KernelModel(nn.Module):
    """x (B, F) -> (B, O)."""

    def __init__(
        self, inputs: int, outputs: int, wires: int, circuit: Circuit, angle_limit: float, *, twin: bool
    ) -> None:
        super().__init__()
        self.wires, self.groups = wires, math.ceil(inputs / wires)
        self.missing = self.groups * wires - inputs
        self.angle_limit = angle_limit
        self.features: nn.Module = (
            PolynomialFeatures(squares=circuit.outputs == 3 * wires) if twin else QuantumFeatures(wires, circuit)
        )
        self.head = nn.Linear(self.groups * circuit.outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        filled = nn.functional.pad(x, (0, self.missing))
        angles = self.angle_limit * filled.reshape(-1, self.groups, self.wires)
        out: Tensor = self.head(self.features(angles).flatten(1))
        return out
