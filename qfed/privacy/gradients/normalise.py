"""Layer and group normalisation: y = (x - mean) / sqrt(var + eps) * w + b over a record's own values.

    dL/dx = (d - mean(d) - z mean(d z)) / sqrt(var + eps),   d = dL/dy w,   z the normalised value
    per record   dL/dw = sum dL/dy z,   dL/db = sum dL/dy    over the axes that w and b are repeated along

Source  Ba et al., arXiv:1607.06450; Wu & He, arXiv:1803.08494.   Shapes  x (K, B, ...), w and b (K, ...)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qfed.privacy.gradients.affine import added
from qfed.privacy.gradients.chain import Array, Fill, Share


@dataclass
class Formed:
    """Gradients of each record as they are, (K, B, size) a parameter."""

    parameters: tuple[int, ...]
    gradients: Sequence[Array]

    def squares(self) -> Array:
        """See Share."""
        if len(self.gradients) == 1:
            return np.asarray(np.vecdot(self.gradients[0], self.gradients[0]))
        return np.asarray(sum(np.vecdot(sample, sample) for sample in self.gradients))

    def weighted(self, factors: Array | None, into: Sequence[Array]) -> None:
        """See Share."""
        for place, sample in zip(into, self.gradients, strict=True):
            added(sample, factors, place)

    def samples(self) -> Sequence[Array]:
        """See Share."""
        return self.gradients


@dataclass(frozen=True)
class Normalise:
    """A record (C, ...) as (G, M): each of G rows is normalised. LayerNorm: w has the shape of the last axes."""

    rows: int
    eps: float
    scaled: bool
    """Whether there is a w."""
    shifted: bool
    leading: bool
    """GroupNorm: w is one number for each entry of a record's first axis."""
    trained: tuple[int, ...]
    trains: tuple[bool, bool]

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        x = inputs[0]
        rows = x.reshape(*x.shape[:2], self.rows, math.prod(x.shape[2:]) // self.rows)
        centred = rows - rows.mean(-1, keepdims=True)
        inverse = 1 / np.sqrt(np.square(centred).mean(-1, keepdims=True) + self.eps)
        z = (centred * inverse).reshape(x.shape)
        out = z * self._repeated(weights[0], x) if self.scaled else z
        if self.shifted:
            out = out + self._repeated(weights[-1], x)
        return out, (z, inverse)

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        z, inverse = saved
        found = (
            [
                self._summed(value, weights[0])
                for value, trains in zip((slope * z, slope), self.trains, strict=True)
                if trains
            ]
            if self.trained
            else []
        )
        share = Formed(self.trained, found) if found else None
        if not wanted[0]:
            return [None], share
        shape = (*z.shape[:2], self.rows, math.prod(z.shape[2:]) // self.rows)
        d = (slope * self._repeated(weights[0], z) if self.scaled else slope).reshape(shape)
        of_rows = z.reshape(shape)
        of_input = inverse * (d - d.mean(-1, keepdims=True) - of_rows * (d * of_rows).mean(-1, keepdims=True))
        return [of_input.reshape(z.shape)], share

    def _repeated(self, w: Array, x: Array) -> Array:
        """(K, ...) as (K, 1, ...) that broadcasts against x."""
        between = x.ndim - 1 - w.ndim
        if self.leading:
            return w.reshape(w.shape[0], 1, *w.shape[1:], *(1,) * between)
        return w.reshape(w.shape[0], *(1,) * (between + 1), *w.shape[1:])

    def _summed(self, value: Array, w: Array) -> Array:
        """(K, B, ...) -> (K, B, size of w)."""
        size = math.prod(w.shape[1:])
        if self.leading:
            return np.asarray(value.reshape(*value.shape[:2], size, -1).sum(-1))
        return np.asarray(value.reshape(*value.shape[:2], -1, size).sum(2))
