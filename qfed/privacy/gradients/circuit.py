"""A QuantumLayer in a chain: per-record gradients come from the kernel's adjoint sweep.

Shapes  x (K, B, ..., D) -> (K, B, ...) as the layer has it, a tuple of measurements (M, B, w) as (K, B, M, w)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from qfed.privacy.gradients.chain import Array, Fill, Share
from qfed.privacy.gradients.normalise import Formed
from qfed.quantum.compiled import Compiled, SitesPull
from qfed.quantum.execute import even


@dataclass(frozen=True)
class Circuit:
    """The compiled circuit with weights of the given shapes; `trained` are the positions of those that are trained."""

    circuit: Compiled
    shape: tuple[int, ...]
    """Of a record's result."""
    columns: tuple[tuple[int, int], ...]
    """Where each weight that is trained lies among the layer's flat weights."""
    trained: tuple[int, ...]

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        x = inputs[0]
        flat = self._flat(weights, len(x), x.dtype)
        rows = x if fill is None else x[fill.present][None]
        places = math.prod(rows.shape[2:-1])
        offsets = even(len(x), rows.shape[1] * places) if fill is None else fill.offsets * places
        out, pull = self._run(rows.reshape(-1, x.shape[-1]), flat, offsets)
        out = out.reshape(*rows.shape[:2], *self.shape)
        return _filled(out, fill), (x.shape, rows.shape, fill, pull)

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        shape, rows, fill, pull = saved
        packed = slope if fill is None else slope[fill.present]
        count = math.prod(rows[:-1])
        of_inputs, of_weights = pull(packed.reshape(count, packed.size // max(count, 1)))
        share = None
        if self.trained:
            if len(shape) > 3:  # a record's gradient is the sum over its rows
                of_weights = of_weights.reshape(rows[0] * rows[1], -1, of_weights.shape[-1]).sum(1)
            of_weights = _filled(of_weights.reshape(*rows[:2], -1), fill)
            share = Formed(self.trained, [of_weights[..., a:b] for a, b in self.columns])
        return [_filled(of_inputs.reshape(rows), fill) if wanted[0] else None], share

    def _flat(self, weights: Sequence[Array], sites: int, dtype: np.dtype[Any]) -> Array:
        """The layer's flat weights, (K, P); frozen ones are the same at all sites."""
        if len(weights) == 1 and len(weights[0]) == sites:
            return weights[0].reshape(sites, -1)
        flat = np.zeros((sites, sum(math.prod(w.shape[1:]) for w in weights)), dtype)
        start = 0
        for w in weights:
            size = math.prod(w.shape[1:])
            flat[:, start : start + size] = w.reshape(len(w), size)
            start += size
        return flat

    def _run(self, x: Array, flat: Array, offsets: Array) -> tuple[Array, SitesPull]:
        if self.circuit.affine is not None:
            return self.circuit.sites(x, flat, offsets)
        rows, w = torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(flat))
        cuts = list(pairwise(offsets))
        found = [self.circuit.per_sample(rows[a:b], w[k]) for k, (a, b) in enumerate(cuts)]

        def pull(cotangent: Array) -> tuple[Array, Array]:
            slopes = torch.from_numpy(np.ascontiguousarray(cotangent))
            both = [f[1](slopes[a:b]) for f, (a, b) in zip(found, cuts, strict=True)]
            return torch.cat([g[0] for g in both]).numpy(), torch.cat([g[1] for g in both]).numpy()

        return torch.cat([f[0] for f in found]).numpy(), pull


def _filled(packed: Array, fill: Fill | None) -> Array:
    """(1, N, ...) in their places of (K, B, ...), zeros elsewhere."""
    if fill is None:
        return packed
    out = np.zeros((*fill.present.shape, *packed.shape[2:]), packed.dtype)
    out[fill.present] = packed[0]
    return out
