"""Operations that only move values or average them: reshape, permute, index, pad, stack, concatenate, mean, sum, pools.

None of them touches the first axis of a record's tensor, its place in the batch; here that is the second, after the
sites.    Shapes  torch's (B, ...) is (K, B, ...)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qfed.privacy.gradients.affine import places, windows
from qfed.privacy.gradients.chain import Array, Fill, Share


@dataclass(frozen=True)
class Reshape:
    """Records of another shape."""

    shape: tuple[int, ...]

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        x = inputs[0]
        return x.reshape(*x.shape[:2], *self.shape), x.shape

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        return [slope.reshape(saved)], None


@dataclass(frozen=True)
class Permute:
    """Axes of a record in another order; `order` counts the sites' axis and the batch's too."""

    order: tuple[int, ...]

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        return inputs[0].transpose(self.order), None

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return [slope.transpose(back)], None


@dataclass(frozen=True)
class Index:
    """x[..., key] where key holds numbers, slices and arrays of indices for a record's axes."""

    key: tuple[Any, ...]
    repeats: bool
    """Whether an array of indices is in the key, which may name a place more than once."""

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        return inputs[0][(slice(None), slice(None), *self.key)], inputs[0].shape

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        found = np.zeros(saved, slope.dtype)
        key = (slice(None), slice(None), *self.key)
        if self.repeats:
            np.add.at(found, key, slope)
        else:
            found[key] = slope
        return [found], None


@dataclass(frozen=True)
class Pad:
    """A number around a record; widths may be negative, which cuts."""

    widths: tuple[tuple[int, int], ...]
    value: float

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        x = inputs[0]
        sizes = [size + before + after for size, (before, after) in zip(x.shape[2:], self.widths, strict=True)]
        out = np.full((*x.shape[:2], *sizes), self.value, x.dtype)
        out[self._target(sizes)] = x[self._source(x.shape[2:])]
        return out, x.shape

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        found = np.zeros(saved, slope.dtype)
        found[self._source(saved[2:])] = slope[self._target(slope.shape[2:])]
        return [found], None

    def _source(self, sizes: Sequence[int]) -> tuple[slice, ...]:
        cut = [slice(max(0, -a), n - max(0, -b)) for n, (a, b) in zip(sizes, self.widths, strict=True)]
        return (slice(None), slice(None), *cut)

    def _target(self, sizes: Sequence[int]) -> tuple[slice, ...]:
        within = [slice(max(0, a), n - max(0, b)) for n, (a, b) in zip(sizes, self.widths, strict=True)]
        return (slice(None), slice(None), *within)


@dataclass(frozen=True)
class Join:
    """Concatenate along an axis, or stack along a new one (`axis` counts sites and batch)."""

    axis: int
    new: bool

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        if self.new:
            return np.stack(inputs, self.axis), None
        return np.concatenate(inputs, self.axis), np.cumsum([x.shape[self.axis] for x in inputs])[:-1]

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        if self.new:
            return list(np.moveaxis(slope, self.axis, 0)), None
        return np.split(slope, saved, self.axis), None


@dataclass(frozen=True)
class Reduce:
    """Sum or mean over axes of a record (`axes` counts sites and batch)."""

    axes: tuple[int, ...]
    keep: bool
    mean: bool

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        x = inputs[0]
        found = x.mean(self.axes, keepdims=self.keep) if self.mean else x.sum(self.axes, keepdims=self.keep)
        return found, x.shape

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        if self.mean:
            slope = slope / math.prod(saved[axis] for axis in self.axes)
        if not self.keep:
            slope = np.expand_dims(slope, self.axes)
        return [np.broadcast_to(slope, saved)], None


@dataclass(frozen=True)
class Pool:
    """nn.MaxPool and nn.AvgPool without padding: x (K, B, C, *S) -> (K, B, C, *S'); of equal values the first wins."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    largest: bool

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array], fill: Fill | None) -> tuple[Array, Any]:
        """See Operation."""
        x = inputs[0]
        sizes = places(x.shape[3:], self.kernel, self.stride, self._dense)
        parts = [x[(..., *window)] for _, window in windows(self.kernel, self.stride, self._dense, sizes)]
        if not self.largest:
            return sum(parts[1:], parts[0]) / len(parts), (x.shape, None)
        stacked = np.stack(parts)
        which = stacked.argmax(0)  # a NaN counts as largest, as in torch
        return np.take_along_axis(stacked, which[None], 0)[0], (x.shape, which)

    def backward(
        self, saved: Any, slope: Array, weights: Sequence[Array], wanted: Sequence[bool]
    ) -> tuple[Sequence[Array | None], Share | None]:
        """See Operation."""
        shape, which = saved
        out = np.zeros(shape, slope.dtype)
        mean = slope / math.prod(self.kernel)
        every = windows(self.kernel, self.stride, self._dense, slope.shape[3:])
        for index, (_, window) in enumerate(every):
            out[(..., *window)] += mean if which is None else slope * (which == index)
        return [out], None

    @property
    def _dense(self) -> tuple[int, ...]:
        return (1,) * len(self.kernel)
