"""Linear layers and convolutions: y_t = W a_t + b for T places of a record, per-record gradient sum_t g_t a_t^T.

T is 1 for a linear layer of records (B, I), the number of positions for (B, ..., I), and the output pixels of a
convolution, whose rows a_t are the patches under the kernel (im2col).

    T = 1     ||grad||^2 = ||g||^2 (||a||^2 + 1)                       never formed
    T > 1     ||grad||^2 = sum_tu (a_t . a_u + 1) (g_t . g_u)          where T^2 (I + O) < T I O, else formed

Shapes  a (K, B, T, G, I), g (K, B, T, G, O), W (K, G, O, I), G groups of a convolution
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from qfed.privacy.gradients.chain import Array, Fill, Share


def added(samples: Array, factors: Array | None, into: Array) -> None:
    """sum_b factors[k, b] samples[k, b] -> into (K, size)."""
    if factors is None:
        np.add.reduce(samples, axis=1, out=into)
    else:
        np.matmul(factors[:, None], samples, out=into[:, None])


@dataclass
class Outer:
    """The share of W and b of a linear layer with one place a record: a (K, B, I), g (K, B, O)."""

    parameters: tuple[int, ...]
    rows: Array | None
    """a, or None when only the bias is trained."""
    slopes: Array
    bias: bool

    def squares(self) -> Array:
        """See Share."""
        found: Array = np.vecdot(self.slopes, self.slopes)
        if self.rows is None:
            return found
        of_rows: Array = np.vecdot(self.rows, self.rows)
        if self.bias:
            of_rows += 1.0
        of_rows *= found
        return of_rows

    def weighted(self, factors: Array | None, into: Sequence[Array]) -> None:
        """See Share."""
        if self.rows is not None:
            scaled = self.slopes if factors is None else self.slopes * factors[:, :, None]
            place = into[0].reshape(len(scaled), scaled.shape[2], self.rows.shape[2])
            np.matmul(scaled.swapaxes(1, 2), self.rows, out=place)
        if self.bias:
            added(self.slopes, factors, into[-1])

    def samples(self) -> Sequence[Array]:
        """See Share."""
        found = []
        if self.rows is not None:
            outer = self.slopes[:, :, :, None] * self.rows[:, :, None, :]
            found.append(outer.reshape(*outer.shape[:2], -1))
        return [*found, self.slopes] if self.bias else found


@dataclass
class Places:
    """The share of W and b where a record has several places: a (K, B, T, G, I), g (K, B, T, G, O)."""

    parameters: tuple[int, ...]
    rows: Array | None
    slopes: Array
    bias: bool

    @property
    def _ghost(self) -> bool:
        if self.rows is None or self.slopes.shape[3] > 1:
            return False
        places, width, out = self.rows.shape[2], self.rows.shape[4], self.slopes.shape[4]
        return bool(places * (width + out) < width * out)

    def squares(self) -> Array:
        """See Share."""
        if not self._ghost or self.rows is None:
            return np.asarray(sum(np.vecdot(sample, sample) for sample in self._formed))
        a, g = self.rows[:, :, :, 0], self.slopes[:, :, :, 0]
        between = a @ a.swapaxes(2, 3)
        if self.bias:
            between += 1.0
        return np.asarray(np.einsum("kbtu,kbtu->kb", between, g @ g.swapaxes(2, 3)))

    def weighted(self, factors: Array | None, into: Sequence[Array]) -> None:
        """See Share."""
        if not self._ghost or self.rows is None:
            for place, sample in zip(into, self._formed, strict=True):
                added(sample, factors, place)
            return
        scaled = self.slopes if factors is None else self.slopes * factors[:, :, None, None, None]
        sites = len(scaled)
        a, g = (v.reshape(sites, -1, v.shape[4]) for v in (self.rows, scaled))
        into[0][...] = (g.swapaxes(1, 2) @ a).reshape(sites, -1)
        if self.bias:
            into[-1][...] = scaled.sum((1, 2)).reshape(sites, -1)

    def samples(self) -> Sequence[Array]:
        """See Share."""
        return self._formed

    @cached_property
    def _formed(self) -> list[Array]:
        found = []
        if self.rows is not None:
            g, a = self.slopes.transpose(0, 1, 3, 4, 2), self.rows.transpose(0, 1, 3, 2, 4)
            each = g @ a
            found.append(each.reshape(*each.shape[:2], -1))
        if self.bias:
            each = self.slopes.sum(2)
            found.append(each.reshape(*each.shape[:2], -1))
        return found


@dataclass(frozen=True)
class Linear:
    """nn.Linear on (K, B, I) or (K, B, ..., I)."""

    trained: tuple[int, ...]
    """Positions of the weight and the bias that are trained, in this order."""
    has_bias: bool
    trains_weight: bool
    trains_bias: bool

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        x, w = inputs[0], weights[0]
        rows = x if x.ndim == 3 else x.reshape(*x.shape[:1], math.prod(x.shape[1:-1]), x.shape[-1])
        out = np.matmul(rows, w.swapaxes(1, 2))
        if self.has_bias:
            out += weights[1][:, None]
        return out if x.ndim == 3 else out.reshape(*x.shape[:-1], out.shape[-1]), x

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        of_input = None
        if wanted[0]:
            flat = slope if slope.ndim == 3 else slope.reshape(slope.shape[0], -1, slope.shape[-1])
            of_input = np.matmul(flat, weights[0]).reshape(saved.shape)
        if not self.trained:
            return [of_input], None
        rows = saved if self.trains_weight else None
        if slope.ndim == 3:
            return [of_input], Outer(self.trained, rows, slope, self.trains_bias)
        sites, batch = slope.shape[:2]
        places = math.prod(slope.shape[2:-1])
        a = None if rows is None else rows.reshape(sites, batch, places, 1, rows.shape[-1])
        g = slope.reshape(sites, batch, places, 1, slope.shape[-1])
        return [of_input], Places(self.trained, a, g, self.trains_bias)


@dataclass(frozen=True)
class Convolution:
    """nn.Conv1d and nn.Conv2d with zero padding: x (K, B, C, *S) -> (K, B, O, *S')."""

    trained: tuple[int, ...]
    has_bias: bool
    trains_weight: bool
    trains_bias: bool
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        x = inputs[0]
        padded = np.pad(x, ((0, 0), (0, 0), (0, 0), *self.padding)) if any(map(any, self.padding)) else x
        sizes = places(padded.shape[3:], self.kernel, self.stride, self.dilation)
        patches = np.empty((*x.shape[:3], *self.kernel, *sizes), x.dtype)  # im2col, a copy an offset
        for offset, window in windows(self.kernel, self.stride, self.dilation, sizes):
            patches[(..., *offset, *(slice(None),) * len(sizes))] = padded[(..., *window)]
        columns = patches.reshape(*x.shape[:2], self.groups, -1, math.prod(sizes))  # (K, B, G, I, T)
        out = np.matmul(self._matrix(weights[0]), columns).reshape(*x.shape[:2], -1, math.prod(sizes))
        if self.has_bias:
            out += weights[1][:, None, :, None]
        return out.reshape(*out.shape[:3], *sizes), (x.shape, columns)

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        shape, columns = saved
        sizes = slope.shape[3:]
        slopes = slope.reshape(*shape[:2], self.groups, slope.shape[2] // self.groups, math.prod(sizes))
        of_input = self._folded(slopes, weights[0], shape, sizes) if wanted[0] else None
        if not self.trained:
            return [of_input], None
        rows = columns.transpose(0, 1, 4, 2, 3) if self.trains_weight else None
        return [of_input], Places(self.trained, rows, slopes.transpose(0, 1, 4, 2, 3), self.trains_bias)

    def _matrix(self, w: Array) -> Array:
        """(K, O, C / G, *k) -> (K, 1, G, O / G, C / G * k)."""
        return w.reshape(len(w), 1, self.groups, w.shape[1] // self.groups, -1)

    def _folded(self, slopes: Array, w: Array, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Array:
        """Slopes of the patches, added up where they overlap."""
        flat = np.matmul(self._matrix(w).swapaxes(3, 4), slopes)
        patches = flat.reshape(*shape[:3], *self.kernel, *sizes)
        whole = [size + sum(pad) for size, pad in zip(shape[3:], self.padding, strict=True)]
        padded = np.zeros((*shape[:3], *whole), flat.dtype)
        for offset, window in windows(self.kernel, self.stride, self.dilation, sizes):
            padded[(..., *window)] += patches[(..., *offset, *(slice(None),) * len(sizes))]
        inside: list[Any] = [slice(pad[0], pad[0] + size) for pad, size in zip(self.padding, shape[3:], strict=True)]
        found: Array = padded[(..., *inside)]
        return found


def places(
    sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """Output positions of a window that slides over `sizes`."""
    return tuple(
        (size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
    )


def windows(
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], sizes: Sequence[int]
) -> Iterator[tuple[Any, Any]]:
    """For each offset in the kernel: the offset, and what of the input it meets at all output positions."""
    for offset in product(*map(range, kernel)):
        yield (
            offset,
            tuple(
                slice(o * d, o * d + s * (count - 1) + 1, s)
                for o, d, s, count in zip(offset, dilation, stride, sizes, strict=True)
            ),
        )
