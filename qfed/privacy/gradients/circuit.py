"""A QuantumLayer in a chain: per-record gradients come from the kernel's adjoint sweep.

Shapes  x (K, B, ..., D) -> (K, B, ...) as the layer has it, a tuple of measurements (M, B, w) as (K, B, M, w)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qfed.privacy.gradients.chain import Array, Share
from qfed.privacy.gradients.normalise import Formed
from qfed.quantum.compiled import Compiled
from qfed.quantum.stacked import per_sample


@dataclass(frozen=True)
class Circuit:
    """The compiled circuit with weights of the given shapes; `trained` are the positions of those that are trained."""

    circuit: Compiled
    shape: tuple[int, ...]
    """Of a record's result."""
    columns: tuple[tuple[int, int], ...]
    """Where each weight that is trained lies among the layer's flat weights."""
    trained: tuple[int, ...]

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array]) -> tuple[Array, Any]:
        """See Operation."""
        x = inputs[0]
        sites = x.shape[0]
        if len(weights) == 1:
            flat = weights[0].reshape(weights[0].shape[0], -1)
        else:
            whole = max(w.shape[0] for w in weights) if weights else 1
            parts = [np.broadcast_to(w.reshape(w.shape[0], -1), (whole, math.prod(w.shape[1:]))) for w in weights]
            flat = np.concatenate(parts, 1) if parts else np.zeros((1, 0), x.dtype)
        if flat.shape[0] != sites:
            flat = np.broadcast_to(flat, (sites, flat.shape[1]))
        rows = x if x.ndim == 3 else x.reshape(sites, math.prod(x.shape[1:-1]), x.shape[-1])
        out, pull = per_sample(self.circuit, rows, flat)
        return out.reshape(*x.shape[:2], *self.shape), (x.shape, out.shape, pull)

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        shape, rows, pull = saved
        of_inputs, of_weights = pull(slope.reshape(rows))
        share = None
        if self.trained:
            if len(shape) > 3:  # a record's gradient is the sum over its rows
                of_weights = of_weights.reshape(*shape[:2], -1, of_weights.shape[-1]).sum(2)
            share = Formed(self.trained, [of_weights[..., a:b] for a, b in self.columns])
        return [of_inputs.reshape(shape) if wanted[0] else None], share
