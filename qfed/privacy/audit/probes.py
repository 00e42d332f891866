"""Canaries of zeroth-order plans: records whose loss along the public directions is known exactly.

    loss_i(w) = 50 C x_i . w,     x_i . z_{s, j, k} = [i = j] / sqrt(K)        step s, canary j, k = 1 .. K

A plan that takes K directions a step is run with m K of them, of which canary j has K to itself: there its differences
are 50 C in L2 norm, spread evenly, and zero along all others, so that what comes out along its K directions is what a
plan of K directions releases of records among which it is, or is not. The guarantee does not depend on their number.
x_i exists because directions are public and independent: it is in the span of the round's Z (S, P), S = steps x m K,

    X = R (Z Z^T)^-1 Z,         R (m, S) the right side above,        P = 3 S / 2 weights, for a good condition

Honest records have x = 0: their loss does not move, whoever knows them subtracts what they do. Loss is linear, so the
point w, which the noise moves, does not matter either. Nothing else of the plan knows: sampler, clipper, noise, ledger
and the sum under masks are those that train. Circuits are not run: their answers are clipped, whatever they are.
Source of the canaries  Steinke, Nasr, Jagielski, NeurIPS 2023 (one run, many canaries)
Shapes  X (m, P), released (steps x m K,) -> (steps, m)      Units  multiples of C      Cost  2 S^2 P a round
Errors  ConfigError where S is beyond 4000
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor, nn

from qfed.errors import ConfigError
from qfed.privacy.audit.canaries import PULL
from qfed.privacy.directions import directions
from qfed.privacy.zeroth_order import Probe

Array = NDArray[np.float64]
_MOST = 4000


def probed_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """What the model says, (B, 1) -> (B,)."""
    return outputs[:, 0]


@dataclass(frozen=True)
class ProbedCanaries:
    """`count` canaries for a plan that asks `probe` of its records."""

    probe: Probe
    count: int

    def __post_init__(self) -> None:
        if self.wide.size > _MOST:
            fits = _MOST // self.probe.size
            raise ConfigError(
                f"canaries={self.count} for training.directions={self.probe.directions} and training.local_steps="
                f"{self.probe.steps} need {self.wide.size} directions a round, more than {_MOST}; audit "
                + (f"with --canaries {fits}" if fits >= 64 else "a configuration with fewer of both")
            )

    @property
    def wide(self) -> Probe:
        """The probe with directions for every canary."""
        return replace(self.probe, directions=self.count * self.probe.directions)

    @property
    def weights(self) -> int:
        """P of the audit's model."""
        return -(-3 * self.wide.size // 2)

    def model(self) -> nn.Module:
        """x . w; x (B, P) -> (B, 1)."""
        return nn.Linear(self.weights, 1, bias=False)

    def features(self, run: str, round: int, clip_norm: float) -> Tensor:
        """50 C X (m, P) of one round."""
        along, each = directions(run, round, self.wide.size, self.weights), self.probe.directions
        right = np.tile(np.repeat(np.eye(self.count), each, axis=1), self.probe.steps) / math.sqrt(each)
        solved = cho_solve(cho_factor(along @ along.T), right.T)
        return torch.from_numpy((PULL * clip_norm * (solved.T @ along)).astype(np.float32))

    def seen(self, released: Array) -> Array:
        """Each canary's coordinate in each step, (steps, m), of what came out along all directions."""
        each: Array = released.reshape(self.probe.steps, self.count, -1).sum(2) / math.sqrt(self.probe.directions)
        return each
